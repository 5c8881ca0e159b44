"""Requests that are summed over the workers with each step: to stop, to save, to end the phase.

A worker that stopped alone would leave the others waiting in the next step. So each step sums the
requests over the workers, and all act on the same sums. One process acts on its own at once.
"""

import numpy as np

from cnnrnn.runs import checkpoints as checkpoints_lib
from cnnrnn.system import stop_signals
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import stopping as stopping_lib

_STOP, _SAVE, _TIME = range(3)


class Requests:
    """The requests of all workers.

    Args:
        workers: that train.
        checkpoints: whether one is due; the chief's clock counts.
        stopping: whether the phase has used its time; likewise.
    """

    def __init__(
        self,
        workers: workers_lib.Workers,
        checkpoints: checkpoints_lib.Checkpoints,
        stopping: stopping_lib.Stopping,
    ):
        self._workers, self._checkpoints, self._stopping = workers, checkpoints, stopping
        self._sums = np.zeros(3, np.float32)

    def to_sum(self) -> tuple[np.ndarray, ...]:
        """The arguments of a training step after the batch: none if there is one process."""
        return () if self._workers.count == 1 else (self._own(),)

    def receive(self, *sums: np.ndarray) -> None:
        """Takes what a training step returned for `to_sum`."""
        if sums:
            self._sums = np.array(sums[0])

    def check_stop(self) -> None:
        """Raises errors.Stopped if a worker has received a signal."""
        if self._current()[_STOP]:
            stop_signals.stop()

    def saved(self) -> None:
        """Takes note of a saved checkpoint: the workers asked for it before, and not again."""
        self._sums[_SAVE] = 0

    @property
    def save(self) -> bool:
        """Whether a checkpoint is due."""
        return bool(self._current()[_SAVE])

    @property
    def out_of_time(self) -> bool:
        """Whether the phase has used its time."""
        return bool(self._current()[_TIME])

    def _current(self) -> np.ndarray:
        return self._own() if self._workers.count == 1 else self._sums

    def _own(self) -> np.ndarray:
        own = np.zeros(3, np.float32)
        own[_STOP] = stop_signals.requested()
        if self._workers.is_chief:
            own[_SAVE] = self._checkpoints.is_due
            own[_TIME] = self._stopping.is_out_of_time
        return own
