"""Console output: this program's log messages as plain lines."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator

import absl.logging

_PACKAGE = f"{pathlib.Path(__file__).parent.parent}/"


class _Lines(logging.Handler):
    """Prints each message as a line, a warning with a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.to_stderr = False

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        if not (is_warning or _is_ours(record)):
            return  # details of Keras and tensorflow-datasets, which log to the same logger
        line = f"{'warning: ' if is_warning else ''}{record.getMessage()}"
        stream = sys.stderr if self.to_stderr or not _is_ours(record) else sys.stdout
        # File names may hold bytes that are not UTF-8, which a strict stream refuses.
        print(line.encode("utf-8", "backslashreplace").decode(), file=stream, flush=True)


class _Messages(logging.Handler):
    """Appends each message of this program to a list."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if _is_ours(record):
            self.messages.append(record.getMessage())


def _is_ours(record: logging.LogRecord) -> bool:
    return record.pathname.startswith(_PACKAGE)


_lines = _Lines()


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
    """Collects this program's messages logged in the block; prints none."""
    handler = _Messages()
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
