"""The comparison of the network with controls."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class AblationSettings:
    """The comparison of the network with controls."""

    seeds: int = fields.setting(
        5,
        "Training runs of each network, with seeds --seed, --seed + 1, and so on.",
        fields.POSITIVE,
    )
    trained_phases: str = fields.setting(
        "phase1",
        "Which phases are trained before the networks are compared: 'phase1', with the CNN frozen, "
        "or 'both'.",
        fields.one_of("phase1", "both"),
    )
