"""Atomic writes: temporary file, fsync, rename."""

import contextlib
import errno
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from cnnrnn import errors
from cnnrnn.system import text as text_lib

_TOKEN = secrets.token_hex(4)
TEMPORARY = ".partial-"  # prefix of files and folders that are being written
KEEPS_EARLIER = "everything saved earlier is intact."
FREE_SPACE = f"free some space; {KEEPS_EARLIER}"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that becomes `path` when the block succeeds.

    The temporary name keeps the suffix, by which some writers choose their format, and differs
    between processes, so that two never write to the same file. If the block raises, or the
    machine loses power, `path` stays as it was.
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
    """Prefix of the names of this process's temporary files.

    The process id is not enough: in containers that share a folder, it may be the same.
    """
    return f"{TEMPORARY}{os.getpid()}x{_TOKEN}-"


def sync(path: pathlib.Path) -> None:
    """Flushes a file's content, or a folder's entries where that is possible, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # e.g. of a folder that a virtual machine shares with its host
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_text(path: pathlib.Path, text: str) -> None:
    r"""Writes text as UTF-8; a surrogate, from a file name that is not UTF-8, as `\udcff`."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON. Any file name is read back unchanged, thanks to the escapes of `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def check_writable(directory: pathlib.Path) -> None:
    """Creates a folder if it does not exist, and raises OSError unless files can be written in it.

    To be called before anything is computed that is to be written there.
    """
    path = directory / ".writable"
    write_text(path, "")
    path.unlink(missing_ok=True)  # without locks another process may have removed it


def check_free_space(directory: pathlib.Path, size: float, what: str, fix: str) -> None:
    """Raises RunError if a disk has less than `size` bytes free.

    HDF5 itself notices a full disk late, and raises several errors.

    Args:
        directory: a folder on that disk.
        size: in bytes.
        what: what needs the space, the subject of the message.
        fix: what the user can do, the end of the message.
    """
    free = shutil.disk_usage(directory).free
    if size > free:
        raise errors.RunError(
            f"{what} needs {size / 1e6:,.0f} MB in {directory}, where {free / 1e6:,.0f} MB are "
            f"free; {fix}"
        )


def check_writable_size(path: pathlib.Path, size: int) -> None:
    """Raises OSError unless a file of `size` bytes can be written; leaves one to be written over.

    Quotas and limits of a process do not show in the free space of a disk. Where the file system
    can reserve space, nothing is written; where it cannot, as on older versions of NFS, the C
    library may write a byte into each block instead.

    Args:
        path: of the file.
        size: in bytes, at least 1.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with open(path, "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of the file system
                raise


def write_error(directory: pathlib.Path, error: Exception) -> errors.RunError:
    """The RunError to raise where a part of a run could not be saved."""
    return errors.RunError(
        f"cannot save to {directory}: {text_lib.first_line(error)}; {KEEPS_EARLIER}"
    )
