"""One process at a time works on a run folder."""

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

from absl import logging

from cnnrnn import errors

_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def held(root: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a run folder, which must exist, while the block runs.

    The system gives the lock back when its holder ends, however it ends: one that is left by a
    dead process is free.

    Raises:
        UsageError: another process holds it; says which.
    """
    with open(root / _NAME, "a+", encoding="utf-8") as file:
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
            logging.info(
                f"note: {root} is on a disk without locks: see to it that no other run uses it"
            )
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


def forget(root: pathlib.Path) -> None:
    """Removes a run folder in which there is nothing but the lock."""
    with contextlib.suppress(OSError):
        if [path.name for path in root.iterdir()] == [_NAME]:
            (root / _NAME).unlink()
            root.rmdir()


def _holder(file) -> str:
    try:
        file.seek(0)
        holder = json.load(file)
        return (
            f"process {holder['process']} on {holder['machine']} since {holder['since']} "
            f"({' '.join(holder['command'])})"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"
