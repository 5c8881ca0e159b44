"""What a phase goes on from.

A checkpoint is everything that decides the next step: weights, optimizer, position, the sums of
the open epoch, the best figure so far, float16's loss scale. Each is a sealed folder (see
`sealed_folder`), numbered upwards; the last two are kept:

  checkpoints/phase1/00000007/variables.index, .data-00000-of-00001    as tf.train.Checkpoint writes
  checkpoints/phase1/00000007/seal.json     their sizes and hashes, the network, the classes
"""

import dataclasses
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

_KEEP = 2
_PREFIX = "variables"


class Position:
    """How far a phase has come, in variables that a checkpoint contains.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the current epoch.
        totals: (4,) float64, the sums of the current epoch (`metrics.sums`).
        best: the best validation value so far, of the figure that the phase selects by.
    """

    def __init__(self, phase: phases.Phase):
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._totals = tf.Variable(np.zeros(4), dtype=tf.float64, trainable=False)
        self._best = tf.Variable(phase.worst, dtype=tf.float64, trainable=False)

    @property
    def epoch(self) -> int:
        return int(self._epoch.numpy())

    @property
    def step(self) -> int:
        return int(self._step.numpy())

    @property
    def totals(self) -> np.ndarray:
        return self._totals.numpy()

    @property
    def best(self) -> float:
        return float(self._best.numpy())

    @best.setter
    def best(self, value: float) -> None:
        self._best.assign(value)

    def advance(self, sums: np.ndarray) -> None:
        """Counts a finished step and adds its (4,) sums to the totals."""
        self._totals.assign(self.totals + sums)
        self._step.assign(self.step + 1)

    def end_epoch(self) -> None:
        """Counts a finished epoch and resets step and totals."""
        self._epoch.assign(self.epoch + 1)
        self._step.assign(0)
        self._totals.assign(np.zeros(4))

    def trackables(self) -> dict[str, tf.Variable]:
        """The variables by their keys in a checkpoint."""
        return {
            "epoch": self._epoch,
            "step": self._step,
            "totals": self._totals,
            "best": self._best,
        }


@dataclasses.dataclass(frozen=True)
class State:
    """Everything that decides the next training step.

    Attributes:
        model: all its variables are saved, frozen ones too.
        optimizer: built; TensorFlow silently leaves out the state of an unbuilt one.
        position: how far the phase has come.
        extra: further variables by their keys in a checkpoint, e.g. the loss scale of float16.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    position: Position
    extra: dict[str, tf.Variable] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SavePolicy:
    """When checkpoints are due, and what happens if one cannot be written.

    Attributes:
        minutes: time between checkpoints.
        on_failure: "stop" or "continue".
    """

    minutes: float
    on_failure: str


class Checkpoints:
    """Saves and restores the checkpoints of one phase.

    Args:
        directory: the folder of the checkpoints; created by the first save.
        state: what is saved and restored.
        class_names: the classes of the model's outputs, in order.
        policy: when to save, and what to do if that fails.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        state: State,
        class_names: tuple[str, ...],
        policy: SavePolicy,
    ):
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(
            model=state.model,
            optimizer=state.optimizer,
            **state.position.trackables(),
            **state.extra,
        )
        self._class_names = list(class_names)
        self._policy = policy
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
            if self._policy.on_failure == "stop":
                raise
            logging.warning(f"{error} Going on without, as --on_save_failure says")
            return False
        return True

    @property
    def is_due(self) -> bool:
        """Whether `minutes` have passed since the last."""
        return time.monotonic() - self._saved_at >= 60 * self._policy.minutes

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
