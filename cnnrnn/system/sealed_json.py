"""JSON files that say whether they are as they were written: each has the SHA-256 of the rest."""

import hashlib
import json
import pathlib
from typing import Any

from cnnrnn.system import atomic_files

_SEAL = "seal_sha256"


def write(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes an object, whole or not at all."""
    atomic_files.write_json(path, value | {_SEAL: _digest(value)})


def read(path: pathlib.Path) -> dict[str, Any]:
    """What `write` was given.

    Raises:
        ValueError: the file is missing, or not as it was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        said = value.pop(_SEAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is missing or damaged ({error})") from error
    if said != _digest(value):
        raise ValueError(f"the content of {path.name} has changed")
    return value


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
