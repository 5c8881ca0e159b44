"""Progress display: one updating line on a terminal, one line per minute elsewhere.

On a terminal the line is erased at the end, and before a message is printed.
"""

import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from cnnrnn.system import stop_signals

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 60.0
_USUAL_COLUMNS = 80  # of terminals that do not say how wide they are
_hidden = False
_on_screen: set["Progress"] = set()  # whose line the cursor is on


def hide() -> None:
    """Shows no progress from now on."""
    global _hidden
    _hidden = True


def erase() -> None:
    """Erases the progress line, if any, so that a message can be printed."""
    for display in list(_on_screen):
        display.clear()


def duration(seconds: float) -> str:
    """Formats a duration: "8 s", "3 min 05 s", "2 h 14 min"."""
    seconds = int(math.ceil(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is shown on a terminal with control characters: TERM=dumb has none."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _width(stream: TextIO) -> int:
    """Characters of a line on the terminal: one that wraps cannot be overwritten."""
    if not os.environ.get("COLUMNS"):
        with contextlib.suppress(OSError):  # no file, in tests
            return (os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS) - 1
    return shutil.get_terminal_size().columns - 1


class Progress:
    """Shows a count, its rate and the estimated time left.

    Args:
        label: name of the work.
        total: number of units.
        unit: plural noun of what is counted.
        initial: units finished before the start; they do not count towards the rate.
        later: units of later displays at the same rate, e.g. of the following epochs.
        stream: where it is shown, by default standard output.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        initial: int = 0,
        later: int = 0,
        stream: TextIO | None = None,
    ):
        self._stream = stream or sys.stdout
        self._label, self._total, self._unit, self._initial = label, total, unit, initial
        self._later, self._limit = later, math.inf
        self._terminal = is_terminal(self._stream)
        self._start = time.monotonic()
        self._shown_at = self._start if not self._terminal else -math.inf
        self._done = initial
        self._measured_from = initial, 0.0  # units and seconds at the start of the shown rate
        self._detail = ""

    def __enter__(self) -> "Progress":
        if self._terminal:
            self._show(end="")  # TensorFlow traces in the first step, which can take long
        return self

    def __exit__(self, *exception) -> None:
        self.clear()

    def at_another_rate(self, later: int) -> None:
        """Begins work at another rate, which alone is then shown and gives the time left.

        Args:
            later: as for the constructor, in units of this work.
        """
        self._later = later
        self._measured_from = self._done, self.seconds

    def end_after(self, seconds: float) -> None:
        """Sets after how many seconds all this work is ended, finished or not."""
        self._limit = self.seconds + seconds

    @property
    def seconds(self) -> float:
        """Seconds since the start, without pauses."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Units per second, since the start."""
        seconds = self.seconds
        return (self._done - self._initial) / seconds if seconds > 0 else 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count towards the rate, with displays of its own."""
        self.clear()
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def update(self, done: int, detail: str = "") -> None:
        """Sets the number of finished units; refreshes the display if it is due."""
        self._done, self._detail = done, detail
        now = time.monotonic()
        if now - self._shown_at >= (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            self._shown_at = now
            self._show(end="" if self._terminal else "\n")

    def clear(self) -> None:
        """Erases the line from the terminal so that other output can follow."""
        if self in _on_screen:
            self._write("", end="\r")
            _on_screen.remove(self)

    def _show(self, end: str) -> None:
        before, since = self._measured_from
        seconds = self.seconds - since
        rate = (self._done - before) / seconds if seconds > 0 else 0.0
        parts = [f": {self._done:,}/{self._total:,} {self._unit}"]
        if self._detail:
            parts.append(self._detail)
        if rate > 0:
            parts.append(
                f"{rate:,.1f} {self._unit}/s" if rate < 100 else f"{rate:,.0f} {self._unit}/s"
            )
            left = self._total - self._done
            if left + self._later > 0:
                limit = max(self._limit - self.seconds, 0.0)
                overall = min((left + self._later) / rate, limit)
                of_all = f" of {duration(overall)}" if self._later else ""
                parts.append(f"{duration(min(left / rate, overall))}{of_all} left")
        line = "  ".join(parts)
        label, room = self._label, _width(self._stream) - len(line)
        if self._terminal and len(label) > room:  # its end tells more than its beginning
            label = "..." + label[len(label) - max(room - 3, 0) :]
        self._write(label + line, end)

    def _write(self, line: str, end: str) -> None:
        if _hidden:
            return
        if self._terminal:
            width = _width(self._stream)
            line = f"\r{line[:width]:<{width}}"
            _on_screen.add(self)
        with stop_signals.tolerating_lost_output(self._stream):
            print(line, end=end, flush=True, file=self._stream)
