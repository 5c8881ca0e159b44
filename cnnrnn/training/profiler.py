"""A trace of some training steps, for the profile tab of TensorBoard."""

import pathlib

import tensorflow as tf
from absl import logging

from cnnrnn.settings import run as run_settings


class Profiler:
    """Records the steps of a process from one to another.

    Args:
        steps: "FIRST,LAST", counted from 1 where the process starts or resumes; "" for none.
        folder: of event files, where TensorBoard looks for traces.
    """

    def __init__(self, steps: str, folder: pathlib.Path):
        self._first, self._last = run_settings.profiled_steps(steps) or (0, -1)
        self._folder = folder
        self._done = 0
        self._recording = False

    def before_step(self) -> None:
        self._done += 1
        if self._done == self._first:
            tf.profiler.experimental.start(str(self._folder))
            self._recording = True
        elif self._done == self._last + 1:
            self.stop()

    def stop(self) -> None:
        """Writes the trace, if one is being recorded; to be called after the last step."""
        if not self._recording:
            if self._first > self._done:
                logging.info(
                    f"note: --profile_steps={self._first},{self._last}: only {self._done:,} steps "
                    "of this phase were trained by this command, so nothing was recorded"
                )
            return
        self._recording = False
        tf.profiler.experimental.stop()
        logging.info(
            f"profile: steps {self._first} to {min(self._last, self._done)} are in "
            f"{self._folder / 'plugins' / 'profile'}; TensorBoard shows them with the package xprof"
        )
