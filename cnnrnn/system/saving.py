"""What the files that a run saves have in common: room on the disk, errors, comparisons."""

import itertools
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from cnnrnn import errors

_WHOLE = "What was saved before is whole: mend that and give the same command again."


def check_room(directory: pathlib.Path, size: int) -> None:
    """Raises RunError if a disk has no room for `size` bytes.

    Asked beforehand because HDF5, on a full disk, fails late and more than once.
    """
    free = shutil.disk_usage(directory).free
    if free < size * 1.02:
        raise errors.RunError(
            f"cannot save to {directory}: it takes {size / 1e6:,.0f} MB and {free / 1e6:,.0f} MB "
            f"are free. {_WHOLE}"
        )


def explained(directory: pathlib.Path, error: Exception) -> errors.RunError:
    """The error to raise where writing to a folder failed."""
    reason = str(getattr(error, "message", None) or error).splitlines()[0]
    return errors.RunError(f"cannot save to {directory}: {reason}. {_WHOLE}")


def first_difference(before: Sequence[Any], now: Sequence[Any]) -> tuple[str, str]:
    """The first entries in which two lists differ, for a message."""
    pairs = itertools.zip_longest(before, now, fillvalue="nothing")
    return next((str(a), str(b)) for a, b in pairs if a != b)
