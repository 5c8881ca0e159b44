"""Augmentation of the training images, and regularization."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class AugmentationSettings:
    """Augmentation of the training images, and regularization."""

    augmentation: str = fields.setting(
        "none",
        "Random changes of each training image: 'none'; 'flip', left to right; 'standard', also "
        "a random crop, brightness, contrast and saturation; 'strong', also RandAugment and "
        "random erasing.",
        fields.one_of("none", "flip", "standard", "strong"),
    )
    mixup: float = fields.setting(
        0.0,
        "Mixup: each training image and its label are mixed with another image of the batch, with "
        "a weight drawn from Beta(MIXUP, MIXUP), e.g. 0.2. 0: off.",
        fields.NOT_NEGATIVE,
    )
    cutmix: float = fields.setting(
        0.0,
        "CutMix: a rectangle of each training image is replaced by that of another of the batch, "
        "its share drawn from Beta(CUTMIX, CUTMIX), e.g. 1. If --mixup is also given, one of the "
        "two is chosen at random for each pair of images. 0: off.",
        fields.NOT_NEGATIVE,
    )
    label_smoothing: float = fields.setting(
        0.0,
        "Share of each training label that is spread evenly over all classes, e.g. 0.1.",
        fields.FRACTION_OR_ZERO,
    )
    dropout: float = fields.setting(
        0.0,
        "Dropout rate of the fused features, before the last dense layer.",
        fields.FRACTION_OR_ZERO,
    )
