"""Lock of a run folder: one process at a time."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from absl import logging

from cnnrnn import errors

_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_ATTEMPTS = 100


@contextlib.contextmanager
def held(root: pathlib.Path) -> Iterator[None]:
    """Creates a run folder if necessary and holds its lock while the block runs.

    The system releases the lock when the process ends, even if it is killed.

    Raises:
        UsageError: another process holds the lock; the message names it.
        OSError: the lock file cannot be opened.
    """
    with _locked(root) as file:
        file.seek(0)
        file.truncate()
        json.dump(
            {
                "process": os.getpid(),
                "machine": platform.node(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                "command": sys.argv,
            },
            file,
        )
        file.flush()
        yield


def remove_unused(root: pathlib.Path) -> None:
    """Removes a run folder that contains nothing but the lock, which the caller holds."""
    with contextlib.suppress(OSError):
        if [path.name for path in root.iterdir()] == [_NAME]:
            (root / _NAME).unlink()
            root.rmdir()


def _locked(root: pathlib.Path) -> TextIO:
    """Opens and locks the lock file; retries while other processes remove it or the folder."""
    path = root / _NAME
    for remaining in reversed(range(_ATTEMPTS)):
        try:
            root.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+", encoding="utf-8")
        except (FileNotFoundError, FileExistsError):
            if not remaining:
                raise
            continue
        try:
            _lock(file, root)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _lock(file: TextIO, root: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise errors.UsageError(
            f"the run folder {root} is in use by {_holder(file)}. Wait until it is done or "
            "stop it, or give another --run=NAME."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning(
            f"the file system of {root} does not support locks: make sure that no other process "
            "uses this run"
        )


def _holder(file: TextIO) -> str:
    try:
        file.seek(0)
        holder = json.load(file)
        return (
            f"process {holder['process']} on {holder['machine']} since {holder['since']} "
            f"({' '.join(holder['command'])})"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"
