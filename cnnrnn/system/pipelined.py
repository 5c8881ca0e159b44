"""Calls of a compiled function whose outputs are read one call late.

On a GPU a compiled function returns before its work is done, and reading an output waits for that
work. If it were read before the next call, the GPU would be idle from its last operation until the
host has launched the next one.
"""

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_AT_ONCE_SECONDS = 1e-3


class Pipelined:
    """Calls a function; returns the outputs of each call when the next one is under way.

    Attributes:
        was_idle: whether the device had no work when the last call was made. That is so if the
            outputs of the call before could be read at once.

    Args:
        function: returns a tensor or a structure of tensors.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._outputs = None  # of the last call, not read yet
        self.was_idle = True

    @property
    def pending(self) -> int:
        """The number of calls whose outputs have not been returned: 0 or 1."""
        return int(self._outputs is not None)

    def call(self, *arguments: Any) -> Any:
        """Calls the function.

        Returns:
            The outputs of the previous call, as NumPy arrays; None if there is none pending.
        """
        outputs = self._function(*arguments)
        previous, self._outputs = self._outputs, outputs
        start = time.monotonic()
        results = read(previous)
        self.was_idle = time.monotonic() - start < _AT_ONCE_SECONDS
        return results

    def drain(self) -> Any:
        """Waits for the last call and returns its outputs; None if there is none pending."""
        previous, self._outputs = self._outputs, None
        return read(previous)


def read(outputs: Any) -> Any:
    """Waits for the outputs of a call and returns them as NumPy arrays; None for None."""
    return None if outputs is None else tf.nest.map_structure(lambda t: t.numpy(), outputs)
