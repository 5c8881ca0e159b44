"""The check of exact resume."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class VerificationSettings:
    """The check of exact resume."""

    kills: int = fields.setting(5, "How often the run is killed.", fields.POSITIVE)
