"""Phase 2: which layers of the CNN are trained, and how."""

import dataclasses

from cnnrnn.settings import fields


def _is_momentum(text: str) -> bool:
    if text == "auto":
        return True
    try:
        return 0 <= float(text) < 1
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class FinetuningSettings:
    """Phase 2: which layers of the CNN are trained, and how."""

    phase2_batchnorm: str = fields.setting(
        "train",
        "BatchNorm of the CNN in phase 2: 'train' (batch statistics, trained scale and offset) or "
        "'frozen' (inference mode, nothing trained).",
        fields.one_of("train", "frozen"),
    )
    batchnorm_momentum: str = fields.setting(
        "0.99",
        "Momentum of BatchNorm's moving averages in phase 2, or 'auto': max(1 - 10 / steps per "
        "epoch, 0.9), for epochs too short for 0.99 (Kornblith et al., arXiv 1805.08974).",
        (_is_momentum, "'auto' or a number from 0 to less than 1"),
    )
    layer_decay: float = fields.setting(
        1.0,
        "Phase 2: factor of the learning rate from each block of the CNN to the one below it, e.g. "
        "0.8, so that rates fall towards the first layers. 1: the same rate everywhere.",
        ((lambda value: 0 < value <= 1), "a number above 0, at most 1"),
    )
    unfreeze_from: str = fields.setting(
        "",
        "Phase 2: train the CNN from this layer on, e.g. block13_sepconv1, and keep the layers "
        "before it frozen. Empty: train all.",
    )
