"""The average of the weights of both phases."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class AveragingSettings:
    """The average of the weights of both phases."""

    alpha: float = fields.setting(
        0.5,
        "Share of phase 2's best weights; the rest is phase 1's.",
        ((lambda value: 0 <= value <= 1), "from 0 to 1"),
    )
