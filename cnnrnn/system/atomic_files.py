"""Files that are whole or not there: written aside, brought to the disk, renamed into place."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that becomes `path` when the block ends well.

    The temporary name keeps the suffix (some writers choose their format by it) and holds the
    process id, so that two processes never write into one file. When the block raises, the
    temporary file is removed and `path` stays as it was. Not even a machine that loses its power
    leaves half a file under the final name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{temporary_prefix()}{path.name}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_prefix() -> str:
    """What the names of this process's half-written files begin with."""
    return f".partial-{os.getpid()}-"


def sync(path: pathlib.Path) -> None:
    """Has the system bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: pathlib.Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
