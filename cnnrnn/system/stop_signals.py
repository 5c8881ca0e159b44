"""Graceful stop on SIGINT (Ctrl-C), SIGTERM and SIGHUP.

The first signal raises `errors.Stopped` immediately or, within `held()`, at the next `check()`, so
that a step is finished and saved. A second one ends the process, unless it means the same: it comes
at once, as from a program that signals all processes, or it is the SIGHUP of a terminal that is
closed meanwhile. The state is global, like the signal handlers.
"""

import contextlib
import errno
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TextIO

from cnnrnn import errors

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HELD = b"\ncnnrnn: stopping after the current step is saved; a second signal stops immediately\n"

_SAME_SECONDS = 0.5  # between two signals that mean the same
_LOST = (errno.EPIPE, errno.EIO)  # nobody reads a pipe; the terminal has been closed

_holds = 0
_drops_output = False
_requested: signal.Signals | None = None
_requested_at = 0.0
_to_end: list[Callable[[], None]] = []  # called before a second signal ends the process


def install() -> None:
    """Installs the handlers, except for signals that the process ignores (nohup)."""
    for signum in _SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _on_signal)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Defers a signal until `check()` or the end of the block."""
    global _holds
    _holds += 1
    try:
        yield
    finally:
        _holds -= 1
    if _holds == 0:
        check()


def check() -> None:
    """Raises errors.Stopped if a signal was received."""
    if _requested is not None:
        stop()


def requested() -> bool:
    """Whether a signal was received."""
    return _requested is not None


@contextlib.contextmanager
def dropping_output() -> Iterator[None]:
    """Messages and progress that cannot be written to a file are lost in the block, silently.

    For commands that take hours and whose results are elsewhere: a log on a full disk must not end
    them.
    """
    global _drops_output
    before, _drops_output = _drops_output, True
    try:
        yield
    finally:
        _drops_output = before


@contextlib.contextmanager
def tolerating_lost_output(stream: TextIO) -> Iterator[None]:
    """Ignores errors of output in the block once a signal was received.

    The terminal, or the other program of a pipe, may have ended with it: what is to be saved must
    be saved nevertheless. Within `held()`, a terminal or a pipe that is lost without a signal, as
    of a process in the background, is taken for SIGHUP. Within `dropping_output()`, errors of
    files are ignored, too.

    Args:
        stream: that the block writes to.
    """
    try:
        yield
    except OSError as error:
        if _requested is not None:
            return
        if _drops_output and _is_file(stream):
            _empty(stream)
            return
        if not _holds or error.errno not in _LOST:
            raise
        _request(signal.SIGHUP)


def _is_file(stream: TextIO) -> bool:
    return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)


def _empty(stream: TextIO) -> None:
    """Drops what a stream could not write, so that it can take what is written later."""
    kept = os.dup(stream.fileno())
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        stream.flush()
    finally:
        os.dup2(kept, stream.fileno())
        os.close(kept)


@contextlib.contextmanager
def ending(end: Callable[[], None]) -> Iterator[None]:
    """A context in which a second signal also calls `end`, which ends another process."""
    _to_end.append(end)
    try:
        yield
    finally:
        _to_end.remove(end)


def stop() -> NoReturn:
    """Raises errors.Stopped for the signal that was received, if any, else for SIGTERM."""
    raise errors.Stopped(_requested or signal.SIGTERM)


def _on_signal(signum: int, frame) -> None:
    if _requested is not None:
        if signum == signal.SIGHUP or time.monotonic() - _requested_at < _SAME_SECONDS:
            return
        for end in _to_end:
            end()
        os._exit(errors.Stopped(signal.Signals(signum)).exit_code)
    _request(signal.Signals(signum))
    if _holds == 0:
        raise errors.Stopped(_requested)
    with contextlib.suppress(OSError):  # the terminal may have ended
        os.write(2, _HELD)


def _request(signum: signal.Signals) -> None:
    global _requested, _requested_at
    _requested, _requested_at = signum, time.monotonic()
