"""Command-line arguments that name images: files, folders, patterns, or '-' (standard input)."""

import collections
import glob
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from cnnrnn import errors
from cnnrnn.datasets import class_folders, example_source, image_check

_STANDARD_INPUT = "-"


def read(path: str, max_pixels: int) -> tuple[bytes, str]:
    """Reads and checks an image.

    Args:
        path: of its file.
        max_pixels: see `image_check.examine`.

    Returns:
        encoded: the file's content, empty if it cannot be read.
        problem: why it cannot be classified, '' if it can.
    """
    try:
        encoded = example_source.read_file(path)
    except (OSError, ValueError) as error:  # ValueError: its name has a null byte
        return b"", f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return encoded, image_check.examine(encoded, max_pixels).problem


def expand(arguments: Sequence[str]) -> list[str]:
    """The paths that arguments stand for, which may be of files that do not exist.

    Args:
        arguments: files; folders, searched with their subfolders for images as a data set is;
            glob patterns; or '-' for paths on standard input, one per line.

    Raises:
        UsageError: there are no paths.
    """
    paths = list(itertools.chain.from_iterable(map(_paths, arguments)))
    if not paths:
        raise errors.UsageError(
            "expected images: files, folders, patterns, or - for paths on standard input, one per "
            f"line. Received: {' '.join(arguments) or 'nothing'}."
        )
    return paths


def _paths(argument: str) -> Iterator[str]:
    """The paths that one argument stands for, sorted; standard input keeps its order."""
    if argument == _STANDARD_INPUT:
        # Read as bytes: file names may be in any encoding.
        lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
        yield from (os.fsdecode(line) for line in lines if line)
    elif os.path.isdir(argument):
        unreadable = []
        walk = class_folders.walk(argument, unreadable.append, collections.Counter())
        for directory, _, images in walk:
            yield from (os.path.join(directory, name) for name in sorted(images))
        yield from (error.filename for error in unreadable)  # `read` reports these
    elif os.path.lexists(argument) or not glob.has_magic(argument):
        yield argument  # if it does not exist, `read` reports it
    else:
        matches = sorted(glob.glob(argument, recursive=True))
        yield from (path for path in matches if not os.path.isdir(path)) if matches else [argument]
