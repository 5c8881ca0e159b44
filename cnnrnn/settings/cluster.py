"""Several workers on this machine."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """Several workers on this machine."""

    workers: int = fields.setting(
        1,
        "Number of workers to start; cluster needs 2 or more. With it, verify-resume kills one of "
        "them at a time.",
        fields.POSITIVE,
    )
    restarts: int = fields.setting(
        3,
        "Give up after this many restarts in a row without a new checkpoint.",
        fields.NOT_NEGATIVE,
    )
