"""What a phase goes on from.

A checkpoint is everything that decides the next step: weights, optimizer, position, the sums of
the open epoch, the best figure so far, float16's loss scale. Each is a sealed folder (see
`sealed_folder`), numbered upwards; the last two are kept:

  checkpoints/phase1/00000007/variables.index, .data-00000-of-00001    as tf.train.Checkpoint writes
  checkpoints/phase1/00000007/seal.json     their sizes and hashes, the network, the classes
"""

import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import errors, phases
from cnnrnn.system import atomic_files, checksummed
from cnnrnn.system import text as text_lib
from cnnrnn.training import loss_scale as loss_scale_lib

_KEEP = 2
_PREFIX = "variables"


class Position:
    """Where a phase stands, as variables, so that a checkpoint holds it.

    `epoch` and `step` count what is done: step 3 of epoch 2 means two whole epochs and three
    steps. `totals` are the sums of the open epoch (`metrics.sums`).
    """

    def __init__(self, phase: phases.Phase):
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.totals = tf.Variable(np.zeros(4), dtype=tf.float64, trainable=False)
        self.best = tf.Variable(phase.worst, dtype=tf.float64, trainable=False)

    def trackables(self) -> dict[str, tf.Variable]:
        return dict(vars(self))


class Checkpoints:
    """Saves and restores one phase.

    Args:
        directory: where; made if need be.
        model: its variables are saved, frozen ones too.
        optimizer: built, or its state would be left out without a word.
        position: where the phase stands.
        class_names: what the outputs mean.
        minutes: a save `is_due` when this long has passed since the last.
        on_failure: "stop" or "continue", where a checkpoint cannot be written.
        loss_scale: float16's, if there is one.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        position: Position,
        *,
        class_names: tuple[str, ...],
        minutes: float,
        on_failure: str,
        loss_scale: loss_scale_lib.LossScale | None = None,
    ):
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=optimizer,
            **position.trackables(),
            **(loss_scale.trackables() if loss_scale else {}),
        )
        self._class_names = list(class_names)
        self._on_failure = on_failure
        self._seconds = minutes * 60
        self._saved_at = time.monotonic()

    def restore(self) -> pathlib.Path | None:
        """Restores the latest checkpoint that is whole, and says so if one is not.

        Returns:
            Its folder, or None if there is none at all.

        Raises:
            UsageError: it is of another network or of other classes.
            RunError: there are checkpoints but none is whole. Never a silent fresh start.
        """
        folders = self._folders()
        faults = []
        for folder in reversed(folders):
            try:
                notes = checksummed.read_metadata(folder)
                break
            except ValueError as error:
                faults.append(f"{folder}: {error}")
        else:
            if folders:
                raise errors.RunError(
                    f"none of the checkpoints in {self._directory} is whole ({'; '.join(faults)}). "
                    "Put the files back, or train afresh under another --run=NAME."
                )
            return None
        for fault in faults:
            logging.warning(f"the checkpoint {fault}. It is not used")
        if faults:
            logging.warning(f"going on from the one before, {folder}: what came after is lost")
        self._check_same(folder, notes)
        try:
            self._checkpoint.read(str(folder / _PREFIX)).assert_consumed()
        except (ValueError, IndexError, AssertionError, tf.errors.OpError) as error:
            raise errors.RunError(
                f"the checkpoint {folder} cannot be restored: {text_lib.first_line(error)}. Train "
                "afresh under another --run=NAME."
            ) from error
        for damaged in folders[folders.index(folder) + 1 :]:
            shutil.rmtree(damaged)
        self._saved_at = time.monotonic()
        return folder

    def save(self) -> None:
        """Writes a checkpoint; the one before stays until this one is whole.

        Raises:
            RunError: it cannot be written, e.g. because the disk is full, and `on_failure` says
                to stop.
        """
        self.attempt(self._save)
        self._saved_at = time.monotonic()

    def attempt(self, save: Callable[[], None]) -> bool:
        """Saves something of the run; returns whether it was saved.

        Raises:
            RunError: as `save` does.
        """
        try:
            save()
        except errors.RunError as error:
            if self._on_failure == "stop":
                raise
            logging.warning(f"{error} Going on without, as --on_save_failure says")
            return False
        return True

    @property
    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last."""
        return time.monotonic() - self._saved_at >= self._seconds

    def _save(self) -> None:
        before = self._folders()
        number = int(before[-1].name) + 1 if before else 1
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            atomic_files.check_free_space(
                self._directory, 1.02 * self._bytes(), "saving", atomic_files.KEEPS_EARLIER
            )
            with checksummed.writing(self._directory / f"{number:08d}", self._notes()) as folder:
                self._checkpoint.write(str(folder / _PREFIX))
        except (OSError, tf.errors.OpError) as error:
            raise atomic_files.write_error(self._directory, error) from error
        for old in before[: -_KEEP + 1]:
            shutil.rmtree(old, ignore_errors=True)

    def _folders(self) -> list[pathlib.Path]:
        """The checkpoints there are, oldest first."""
        if not self._directory.exists():
            return []
        return sorted(path for path in self._directory.iterdir() if path.name.isdigit())

    def _notes(self) -> dict[str, Any]:
        model = self._checkpoint.model
        return {
            "classes": self._class_names,
            "weights": [[v.path, list(v.shape), v.dtype] for v in model.weights],
        }

    def _check_same(self, folder: pathlib.Path, notes: dict[str, Any]) -> None:
        """TensorFlow restores by order: two layers of one shape that changed places, silently."""
        now = self._notes()
        for what, name in (("weights", "network"), ("classes", "class list")):
            if notes[what] != now[what]:
                before, after = text_lib.first_difference(notes[what], now[what])
                raise errors.UsageError(
                    f"the checkpoint {folder} is of another {name}: it has {before} where there "
                    f"is {after} now. Train afresh under another --run=NAME."
                )

    def _bytes(self) -> int:
        """What one checkpoint takes: each number is four bytes."""
        model, optimizer = self._checkpoint.model, self._checkpoint.optimizer
        variables = [*model.variables, *optimizer.variables]
        return 4 * sum(int(np.prod(variable.shape)) for variable in variables)
