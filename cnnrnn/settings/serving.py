"""The HTTP server."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class ServingSettings:
    """The HTTP server."""

    host: str = fields.setting(
        "127.0.0.1",
        "IPv4 address or name to listen on; the default is reachable from this machine only.",
        fields.GIVEN,
    )
    port: int = fields.setting(
        8501,
        "Port to listen on; 0: any free one.",
        ((lambda value: 0 <= value < 2**16), "from 0 to 65535"),
    )
    max_body_megabytes: float = fields.setting(
        20.0, "Refuse requests with a larger body.", fields.POSITIVE_REAL
    )
