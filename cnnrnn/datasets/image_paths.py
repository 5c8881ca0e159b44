"""The images that command-line arguments name: files, folders, patterns, or standard input."""

import glob
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from cnnrnn import errors
from cnnrnn.datasets import example_source, image_check, image_folder

_STANDARD_INPUT = "-"


def read(path: str, max_pixels: int) -> tuple[bytes, str]:
    """An image's file, and what is wrong with it, '' if it can be classified."""
    try:
        encoded = example_source.read_file(path)
    except (OSError, ValueError) as error:  # ValueError: its name has a null byte
        return b"", f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return encoded, image_check.examine(encoded, max_pixels).problem


def expand(arguments: Sequence[str]) -> list[str]:
    """The images that arguments stand for: files, folders, patterns, or '-'.

    Raises:
        UsageError: there are none.
    """
    paths = list(itertools.chain.from_iterable(map(_paths, arguments)))
    if not paths:
        raise errors.UsageError(
            "expected images: files, folders, patterns, or - for names on standard input, one a "
            f"line. Received: {' '.join(arguments) or 'nothing'}."
        )
    return paths


def _paths(argument: str) -> Iterator[str]:
    """The images that one argument stands for, in the order of their names."""
    if argument == _STANDARD_INPUT:
        # Bytes: names are in no encoding, and a strict one would end it all.
        lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
        yield from (os.fsdecode(line) for line in lines if line)
    elif os.path.isdir(argument):
        unreadable = []
        for directory, folders, files in os.walk(argument, onerror=unreadable.append):
            folders.sort()
            for name in sorted(files):
                if os.path.splitext(name)[1].lower() in image_folder.IMAGE_SUFFIXES:
                    yield os.path.join(directory, name)
        yield from (error.filename for error in unreadable)  # answered as such
    elif os.path.lexists(argument) or not glob.has_magic(argument):
        yield argument  # one that is not there is answered as such
    else:
        found = sorted(glob.glob(argument, recursive=True))
        yield from (path for path in found if not os.path.isdir(path)) if found else [argument]
