"""Console output: this program's log messages as plain lines, with color on a terminal."""

import contextlib
import logging
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TextIO

import absl.logging

from cnnrnn.system import progress, stop_signals

_PACKAGE = f"{pathlib.Path(__file__).parent.parent}/"
_STYLES = {"bold": "1", "error": "31", "good": "32", "warning": "33"}


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """A text in bold or in color if it is shown on a terminal.

    Args:
        text: without styles.
        style: "bold", "error", "good" or "warning".
        stream: where it is shown, by default standard output. NO_COLOR, if it is not empty, turns
            all styles off (https://no-color.org), as does TERM=dumb.
    """
    if os.environ.get("NO_COLOR") or not progress.is_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


class _Lines(logging.Handler):
    """Prints each message as a line, a warning with a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.to_stderr = False
        self.only_warnings = False
        self.prefix = ""

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        if not is_warning and (self.only_warnings or not _is_ours(record)):
            return  # details of Keras and tensorflow-datasets, which log to the same logger
        stream = sys.stderr if self.to_stderr or not _is_ours(record) else sys.stdout
        prefix = styled("warning: ", "warning", stream) if is_warning else ""
        line = f"{self.prefix}{prefix}{record.getMessage()}"
        progress.erase()
        with stop_signals.tolerating_lost_output(stream):
            print(line, file=stream, flush=True)


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


def print_summary(text: str) -> None:
    """Prints the results of a command, which are in files, too, on standard output."""
    with stop_signals.tolerating_lost_output(sys.stdout):
        print(text)


def open_closed_streams() -> None:
    """Standard streams that are closed, as by `2>&-`, read and write nothing from now on.

    To be called before files are opened: one of them would get the descriptor of the stream, and
    with it the messages of libraries.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def install() -> None:
    """Prints the messages of absl.logging on standard output from now on. Idempotent."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold letters that its encoding lacks, and bytes that are not UTF-8.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    absl.logging.set_verbosity(absl.logging.INFO)
    logger = absl.logging.get_absl_logger()
    logger.addHandler(_lines)
    # absl gives the root logger a handler, which would print each message to stderr once more.
    logger.propagate = False


def only_warnings(prefix: str) -> None:
    """Prints warnings only from now on, with a prefix, and no progress."""
    _lines.only_warnings, _lines.prefix = True, prefix
    progress.hide()


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
