"""Folders that are whole or not there, and that can be checked later.

  NAME/...          what was written
  NAME/seal.json    the size and SHA-256 of each file, and notes of whoever wrote them

A folder gets its name last, when all of it is on the disk. Found damaged afterwards, by a disk, a
copy or a person, it says what is wrong with it.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from cnnrnn.system import atomic_files, sealed_json

SEAL = "seal.json"
_PARTIAL = ".partial-*"


@contextlib.contextmanager
def writing(folder: pathlib.Path, notes: dict[str, Any]) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `folder` when the block ends well.

    Args:
        folder: one that is there is replaced when the new one is whole.
        notes: JSON, kept in the seal.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{atomic_files.temporary_prefix()}{folder.name}")
    outdated = temporary.with_name(f"{temporary.name}-outdated")
    temporary.mkdir()
    try:
        yield temporary
        files = {}
        for path in _files(temporary):
            atomic_files.sync(path)
            files[path.relative_to(temporary).as_posix()] = _describe(path)
        sealed_json.write(temporary / SEAL, {"notes": notes, "files": files})
        if folder.exists():  # a folder that holds something cannot be renamed over
            os.rename(folder, outdated)
        os.rename(temporary, folder)
        atomic_files.sync(folder.parent)
        shutil.rmtree(outdated, ignore_errors=True)  # not before: till then it is all there is
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def notes(folder: pathlib.Path) -> dict[str, Any]:
    """The notes of a whole folder.

    Raises:
        ValueError: the folder is not as it was written; says which file, and what is wrong.
    """
    seal = sealed_json.read(folder / SEAL)
    for name, written in seal["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is gone")
        if path.stat().st_size != written["bytes"]:
            raise ValueError(
                f"{name} has {path.stat().st_size:,} bytes and had {written['bytes']:,}"
            )
        if _describe(path) != written:
            raise ValueError(f"the content of {name} has changed")
    return seal["notes"]


def clear_leftovers(parent: pathlib.Path) -> None:
    """Removes what processes that were killed left half written in a folder.

    Only for whoever is sure that no other process writes there now.
    """
    for path in parent.glob(_PARTIAL):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _describe(path: pathlib.Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
