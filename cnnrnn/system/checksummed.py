"""Folders and JSON files that carry checksums of their content.

  NAME/...          the files
  NAME/seal.json    size and SHA-256 of each file, and the writer's metadata

A folder is written under a temporary name and renamed once all of it is on disk. Later damage is
detected when the folder is read.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from cnnrnn.system import atomic_files

# Names on disk: existing runs have them.
CHECKSUMS = "seal.json"
_OWN_CHECKSUM = "seal_sha256"
_METADATA = "notes"

_REPLACED = ".replaced-"  # prefix of a folder that is being replaced


def file_digest(path: pathlib.Path, algorithm: str = "sha256") -> str:
    """The checksum of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextlib.contextmanager
def writing(folder: pathlib.Path, metadata: dict[str, Any]) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `folder` when the block succeeds.

    The caller must hold the run's lock. If the block raises, `folder` stays as it was. A process
    that is killed leaves either the old folder or the new one; `clean_up` restores its name where
    that is necessary.

    Args:
        folder: replaced if it exists. Of a symbolic link, the folder that it points to.
        metadata: JSON, stored with the checksums.
    """
    is_link, folder = folder.is_symlink(), folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if is_link:  # `clean_up` does not know where it points to
        for path in folder.parent.glob(f"{atomic_files.TEMPORARY}*"):
            if path.name.removeprefix(atomic_files.TEMPORARY).partition("-")[2] == folder.name:
                shutil.rmtree(path, ignore_errors=True)
    temporary = folder.with_name(f"{atomic_files.temporary_prefix()}{folder.name}")
    replaced = folder.with_name(f"{_REPLACED}{folder.name}")
    _finish_replacing(replaced)
    temporary.mkdir()
    try:
        yield temporary
        files = {}
        for path in sorted(temporary.rglob("*")):
            atomic_files.sync(path)
            if path.is_file():
                files[path.relative_to(temporary).as_posix()] = _describe(path)
        write_json(temporary / CHECKSUMS, {_METADATA: metadata, "files": files})
        if folder.exists():  # a folder that is not empty cannot be renamed over
            os.rename(folder, replaced)
        os.rename(temporary, folder)
        atomic_files.sync(folder.parent)
    finally:
        _finish_replacing(replaced)
        shutil.rmtree(temporary, ignore_errors=True)


def read_metadata(folder: pathlib.Path, below: str = "") -> dict[str, Any]:
    """The metadata of a folder whose files are intact.

    Args:
        folder: written by `writing`.
        below: a folder in it, of which alone the files are checked. Empty: all files.

    Raises:
        ValueError: a file is missing or differs from what was written; the message names it.
    """
    checksums = read_json(folder / CHECKSUMS)
    for name, written in checksums["files"].items():
        if below and not name.startswith(f"{below}/"):
            continue
        path = folder / name
        try:
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            if path.stat().st_size != written["bytes"]:
                raise ValueError(
                    f"{name} has {path.stat().st_size:,} bytes instead of {written['bytes']:,}"
                )
            if _describe(path) != written:
                raise ValueError(f"the content of {name} has changed")
        except OSError as error:
            raise ValueError(f"{name} cannot be read ({error.strerror})") from error
    return checksums[_METADATA]


def clean_up(parent: pathlib.Path) -> None:
    """Removes the temporary files of killed processes and finishes their replacements.

    The caller must hold the run's lock: no other process may be writing in `parent`.
    """
    for replaced in parent.glob(f"{_REPLACED}*"):
        _finish_replacing(replaced)
    for path in parent.glob(f"{atomic_files.TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _finish_replacing(replaced: pathlib.Path) -> None:
    """Removes a replaced folder if the new one is in place, else restores its name."""
    if not replaced.exists():
        return
    folder = replaced.with_name(replaced.name.removeprefix(_REPLACED))
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        os.rename(replaced, folder)


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes a JSON object atomically, together with its own checksum."""
    atomic_files.write_json(path, value | {_OWN_CHECKSUM: _digest(value)})


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a file written by `write_json`, without its checksum.

    Raises:
        ValueError: the file is missing, unreadable, or has changed since it was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        recorded = value.pop(_OWN_CHECKSUM)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is missing or damaged ({error})") from error
    if recorded != _digest(value):
        raise ValueError(f"the content of {path.name} has changed")
    return value


def _describe(path: pathlib.Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
