"""Graceful stop on SIGINT (Ctrl-C), SIGTERM and SIGHUP.

The first signal raises `errors.Stopped` immediately or, within `held()`, at the next `check()`, so
that a step is finished and saved. A second signal ends the process. The state is global, like
the signal handlers.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

from cnnrnn import errors

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HELD = b"\ncnnrnn: stopping after the current step is saved; a second signal stops immediately\n"

_holds = 0
_requested: signal.Signals | None = None


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
def tolerating_lost_output() -> Iterator[None]:
    """Ignores errors of output in the block once a signal was received.

    The terminal, or the other program of a pipe, may have ended with it: what is to be saved must
    be saved nevertheless.
    """
    try:
        yield
    except OSError:
        if _requested is None:
            raise


def stop() -> NoReturn:
    """Raises errors.Stopped for the signal that was received, if any, else for SIGTERM."""
    raise errors.Stopped(_requested or signal.SIGTERM)


def _on_signal(signum: int, frame) -> None:
    global _requested
    if _requested is not None:
        os._exit(errors.Stopped(signal.Signals(signum)).exit_code)
    _requested = signal.Signals(signum)
    if _holds == 0:
        raise errors.Stopped(_requested)
    with tolerating_lost_output():
        os.write(2, _HELD)
