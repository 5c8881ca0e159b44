"""Being asked to stop: Ctrl-C, SIGTERM, SIGHUP.

The first signal raises `errors.Stopped` where the program is, unless that is within `held()`:
there it is raised at the next `check()`, so that a step is finished and saved before. The second
ends the process at once. Signals and their handlers belong to the process, and so does this
module's state.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

from cnnrnn import errors

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HELD = (
    b"\ncnnrnn: stopping once the step at hand is done and saved; a second signal ends at once\n"
)

_holds = 0
_requested: signal.Signals | None = None


def install() -> None:
    """Takes over the signals, but for those that the process was started to ignore (nohup)."""
    for signum in _SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _on_signal)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Puts off a signal until `check()` or the end of the block."""
    global _holds
    _holds += 1
    try:
        yield
    finally:
        _holds -= 1
    if _holds == 0:
        check()


def check() -> None:
    """Raises errors.Stopped if a signal has come."""
    if _requested is not None:
        raise errors.Stopped(_requested)


def _on_signal(signum: int, frame) -> None:
    global _requested
    if _requested is not None:
        os._exit(errors.Stopped(signal.Signals(signum)).exit_code)
    _requested = signal.Signals(signum)
    if _holds == 0:
        raise errors.Stopped(_requested)
    os.write(2, _HELD)
