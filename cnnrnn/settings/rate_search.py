"""The search for a learning rate."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class RateSearchSettings:
    """The search for a learning rate."""

    phase: str = fields.setting(
        "phase1", "The phase to find a rate for.", fields.one_of("phase1", "phase2")
    )
