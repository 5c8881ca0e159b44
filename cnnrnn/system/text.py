"""Text of messages: printable file names, one-line errors, differences of lists."""

import itertools
import os
import pathlib
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

CALLED_AS = "_CNNRNN_CALLED_AS"  # for child processes: how the user calls the program


def printable(text: str) -> str:
    """A file name as one line of valid UTF-8, with escapes for other bytes."""
    shown = "".join(c if unicodedata.category(c) != "Cc" else repr(c)[1:-1] for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()


def is_encodable(text: str) -> bool:
    """Whether a text can be a file name: it contains no half of a surrogate pair."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def one_line(text: object) -> str:
    """Joins all lines and runs of whitespace by single spaces."""
    return " ".join(str(text).split())


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class if it has none."""
    lines = str(getattr(error, "message", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def first_difference(before: Sequence[Any], now: Sequence[Any]) -> tuple[str, str]:
    """The first pair of entries in which two lists differ."""
    pairs = itertools.zip_longest(before, now, fillvalue="nothing")
    return next((str(a), str(b)) for a, b in pairs if a != b)


def program() -> str:
    """How the user calls this program: 'cnnrnn' where pip installed it, else './run.sh'."""
    called = pathlib.Path(sys.argv[0]).name
    return os.environ.get(CALLED_AS, "cnnrnn" if called == "cnnrnn" else "./run.sh")
