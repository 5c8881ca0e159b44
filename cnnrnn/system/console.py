"""Console output: this program's log messages as plain lines."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator
from typing import TextIO

import absl.logging

_PACKAGE = str(pathlib.Path(__file__).parent.parent)


class _Lines(logging.Handler):
    """Prints each message as a line, a warning with a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.to_stderr = False

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        line = prefix + record.getMessage()
        # File names may hold bytes that are not UTF-8, which a strict stdout refuses.
        print(line.encode("utf-8", "backslashreplace").decode(), file=self._stream(), flush=True)

    def _stream(self) -> TextIO:
        return sys.stderr if self.to_stderr else sys.stdout


class _Messages(logging.Handler):
    """Appends each message to a list."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _is_ours(record: logging.LogRecord) -> bool:
    """Leaves out details that Keras and tensorflow-datasets log to the same logger."""
    return record.levelno >= logging.WARNING or record.pathname.startswith(_PACKAGE)


_lines = _Lines()
_lines.addFilter(_is_ours)


def install() -> None:
    """Prints the messages of absl.logging on standard output from now on. Idempotent."""
    absl.logging.set_verbosity(absl.logging.INFO)
    logger = absl.logging.get_absl_logger()
    logger.addHandler(_lines)
    # absl gives the root logger a handler, which would print each message to stderr once more.
    logger.propagate = False


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Prints messages on standard error in the block, whose standard output is a result."""
    _lines.to_stderr = True
    try:
        yield
    finally:
        _lines.to_stderr = False


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Collects the messages logged in the block instead of printing them."""
    handler = _Messages()
    handler.addFilter(_is_ours)
    logger = absl.logging.get_absl_logger()
    shown = _lines in logger.handlers
    logger.removeHandler(_lines)
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
        if shown:
            logger.addHandler(_lines)
