"""Stopping criteria of a phase: epochs, patience, time."""

import contextlib
import math
import time
from collections.abc import Iterator

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.runs import best_weights, checkpoints, identity, run_folder


class Stopping:
    """Decides whether a phase continues, and measures its time.

    Args:
        phase: of the limits.
        config: the limits: epochs, --patience, --max_minutes.
        folder: its record of the phase's best weights says which epoch was best.
        position: its times are advanced by `measure`.
    """

    def __init__(
        self,
        phase: phases.Phase,
        config: config_lib.Config,
        folder: run_folder.RunFolder,
        position: checkpoints.Position,
    ):
        self._phase, self._folder, self._position = phase, folder, position
        self._epochs = config.training.epochs[phase.index]
        self._patience = config.training.patience[phase.index]
        self._minutes = config.training.max_minutes[phase.index]
        self._can_grow = identity.epochs_can_grow(phase, config.to_json())
        self._measured: tuple[float, float] | None = None

    def measure(self) -> None:
        """Adds the time since the last call to that of the phase; starts at the first call."""
        now = time.monotonic(), time.process_time()
        if self._measured is not None:
            self._position.seconds += now[0] - self._measured[0]
            self._position.cpu_seconds += now[1] - self._measured[1]
        self._measured = now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time is not counted as the phase's."""
        self.measure()
        yield
        self._measured = None
        self.measure()

    @property
    def seconds_left(self) -> float:
        """Seconds until --max_minutes ends the phase; infinity without a limit."""
        return 60 * self._minutes - self._position.seconds if self._minutes else math.inf

    @property
    def is_out_of_time(self) -> bool:
        return self.seconds_left <= 0

    @property
    def reason(self) -> str:
        """Why no further epoch is trained, as a sentence; '' if one is."""
        name, position = self._phase.name, self._position
        if position.epoch >= self._epochs:
            return f"{name}: all {self._epochs} epochs are done. " + (
                "Give more --epochs to continue, or another --run=NAME to start again."
                if self._can_grow
                else "--schedule or --cnn_image_size change over them, so that more cannot be "
                "added. To train on from the best weights of this run, give --init_from="
                f"{self._folder.root} and another --run=NAME."
            )
        left = f"{position.epoch} of {self._epochs} epochs"
        if position.step:
            left += f" and {position.step:,} steps"
        # A phase that was stopped before the validation that ends it is not over.
        if self.is_out_of_time and position.step == position.validated:
            return (
                f"{name} has used its --max_minutes={self._minutes:g} after {left}: give more to "
                "continue."
            )
        if self._patience:
            best = best_weights.find(self._folder.best, self._phase)
            best_epoch = max(best.epoch if best else 0, position.best_epoch)
            without = position.epoch - best_epoch if best_epoch else 0
            if without >= self._patience:
                return (
                    f"{name} has had no better validation result for {without} epochs "
                    f"(--patience={self._patience}) after {left}: give a higher one to continue."
                )
        return ""
