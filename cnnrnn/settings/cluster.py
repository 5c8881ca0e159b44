"""Several workers on this machine."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """Several workers on this machine."""

    workers: int = fields.setting(2, "Number of workers to start.", fields.POSITIVE)
    restarts: int = fields.setting(
        3,
        "How often in a row the workers are started again after one has failed before a new "
        "checkpoint was saved.",
        fields.NOT_NEGATIVE,
    )
