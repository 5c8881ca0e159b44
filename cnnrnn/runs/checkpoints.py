"""Saving and restoring of checkpoints.

A checkpoint contains everything that decides the next training step: weights, optimizer, position,
and the loss scale of float16. Each is a checksummed folder (see `system.checksummed`). They are
numbered upwards, and the last two are kept:

  checkpoints/phase1/00000007/variables.index, .data-00000-of-00001    by tf.train.Checkpoint
  checkpoints/phase1/00000007/seal.json     checksums, variable names and shapes, classes
  checkpoints/phase1/damaged-00000008/      could not be read, and was moved aside
"""

import dataclasses
import itertools
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
_EPOCH = "epoch/.ATTRIBUTES/VARIABLE_VALUE"  # the name by TensorFlow of the key "epoch"
# Of a position, in a checkpoint's metadata.
_PLAIN = ("seconds", "cpu_seconds", "validated", "first_sample", "best_epoch")


class _DamagedError(Exception):
    """A checkpoint is damaged or cannot be read."""


class Position:
    """How far a phase has come.

    Plain values, because training reads and changes them in every step; the variables that a
    checkpoint contains are written and read with it.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the current epoch.
        validated: the number of these after which there was a validation, by --max_minutes.
        totals: (4,) float64, the sums of the current epoch (`metrics.sums`).
        best: the best validation value so far, of the figure that the phase selects by.
        seconds: of training and validation so far. No variable, since no step depends on it.
        cpu_seconds: processor time of the program in this time, all threads together.
        first_sample: position of the phase's first sample in the order of the images.
        best_epoch: the epoch of the best validation value, also if its weights could not be saved;
            0 if there is none, and in checkpoints of earlier versions.
    """

    def __init__(self, phase: phases.Phase):
        self.epoch, self.step = 0, 0
        self.totals, self.best = np.zeros(4), phase.worst
        self.seconds = self.cpu_seconds = 0.0
        self.validated = self.first_sample = self.best_epoch = 0
        self._variables = {
            "epoch": tf.Variable(0, dtype=tf.int64, trainable=False),
            "step": tf.Variable(0, dtype=tf.int64, trainable=False),
            "totals": tf.Variable(np.zeros(4), dtype=tf.float64, trainable=False),
            "best": tf.Variable(phase.worst, dtype=tf.float64, trainable=False),
        }

    def advance(self, sums: np.ndarray) -> None:
        """Counts a finished step and adds its (4,) sums to the totals."""
        self.totals = self.totals + sums
        self.step += 1

    def end_epoch(self) -> None:
        """Counts a finished epoch and resets steps and totals."""
        self.epoch += 1
        self.step, self.validated, self.totals = 0, 0, np.zeros(4)

    def trackables(self) -> dict[str, tf.Variable]:
        """The variables by their keys in a checkpoint."""
        return self._variables

    def to_variables(self) -> None:
        """Writes the values into the variables, before they are saved."""
        for name, variable in self._variables.items():
            variable.assign(getattr(self, name))

    def from_variables(self) -> None:
        """Takes the values from the variables, after they were restored."""
        values = {name: variable.numpy() for name, variable in self._variables.items()}
        self.epoch, self.step = int(values["epoch"]), int(values["step"])
        self.totals, self.best = values["totals"], float(values["best"])


@dataclasses.dataclass(frozen=True)
class State:
    """Everything that decides the next training step.

    Attributes:
        model: all its variables are saved, frozen ones too.
        optimizer: built; TensorFlow silently leaves out the state of an unbuilt one.
        position: how far the phase has come.
        extra: further variables by their keys in a checkpoint: the loss scale of float16, the
            average of the weights.
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
        self._position = state.position
        self._extra = tuple(state.extra.values())
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
        """Restores the latest intact checkpoint and moves later, damaged ones aside.

        Returns:
            Its folder, or None if there are no checkpoints.

        Raises:
            UsageError: the checkpoint is of another network or of other classes.
            RunError: there are checkpoints, but none can be restored.
        """
        folders = _folders(self._directory)
        damaged: dict[pathlib.Path, str] = {}
        for folder in reversed(folders):
            try:
                metadata = self._read(folder)
            except _DamagedError as error:
                damaged[folder] = str(error)
                continue
            self._move_aside(damaged, folder)
            self._position.from_variables()
            added = {"validated": self._position.step}  # what earlier versions lack; others: 0
            for name in _PLAIN:
                setattr(self._position, name, metadata.get(name, added.get(name, 0)))
            self._saved_at = time.monotonic()
            return folder
        if folders:
            problems = "; ".join(f"{folder.name}: {problem}" for folder, problem in damaged.items())
            raise errors.RunError(
                f"none of the checkpoints in {self._directory} is intact ({problems}). Restore "
                "the files from a copy, or give another --run=NAME to start again."
            )
        return None

    def _read(self, folder: pathlib.Path) -> dict[str, Any]:
        """Restores one checkpoint and returns its metadata.

        Raises:
            UsageError, RunError: it is intact but does not belong to this run's network.
            _DamagedError: it is damaged or cannot be read.
        """
        try:
            metadata = checksummed.read_metadata(folder)
        except ValueError as error:
            raise _DamagedError(error) from error
        self._check_same(folder, metadata)
        try:
            self._checkpoint.read(str(folder / _PREFIX)).assert_consumed()
        except tf.errors.ResourceExhaustedError:  # out of memory, which is no damage
            raise
        except (IndexError, OSError, tf.errors.OpError) as error:
            raise _DamagedError(text_lib.first_line(error)) from error
        except (AssertionError, ValueError) as error:
            raise errors.RunError(
                f"the checkpoint {folder} does not match the optimizer or the precision of this "
                f"run: {text_lib.first_line(error)}. Give another --run=NAME to start again."
            ) from error
        return metadata

    def _move_aside(self, damaged: dict[pathlib.Path, str], restored: pathlib.Path) -> None:
        for folder, problem in damaged.items():
            target = _unused(folder.with_name(f"damaged-{folder.name}"))
            try:
                folder.rename(target)
            except OSError as error:
                raise atomic_files.write_error(self._directory, error) from error
            logging.warning(
                f"the checkpoint {folder} is damaged ({problem}) and was renamed to {target}. "
                f"Training resumes from the previous one, {restored.name}; delete the damaged one "
                "when you do not need it."
            )

    def save(self) -> None:
        """Writes a checkpoint; earlier ones stay until it is complete.

        Raises:
            RunError: it cannot be written, e.g. on a full disk, and the policy is to stop.
        """
        self.attempt(self._save)
        self._saved_at = time.monotonic()

    def attempt(self, save: Callable[[], None]) -> bool:
        """Calls `save` under the policy; returns whether it succeeded.

        Raises:
            RunError: `save` raised it, and the policy is to stop.
        """
        try:
            save()
        except errors.RunError as error:
            if self._policy.on_failure == "stop":
                again = "Fix this and give the same command again."
                raise errors.RunError(f"{error} {again}") from error
            logging.warning(f"{error} Training continues without it (--on_save_failure=continue)")
            return False
        return True

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is as old as the policy allows."""
        return time.monotonic() - self._saved_at >= 60 * self._policy.minutes

    def _save(self) -> None:
        try:
            earlier = _folders(self._directory)
            number = int(earlier[-1].name) + 1 if earlier else 1
            self._directory.mkdir(parents=True, exist_ok=True)
            atomic_files.check_free_space(
                self._directory, 1.02 * self._bytes(), "saving", atomic_files.FREE_SPACE
            )
            plain = {name: getattr(self._position, name) for name in _PLAIN}
            metadata = self._metadata() | plain
            with checksummed.writing(self._directory / f"{number:08d}", metadata) as folder:
                self._position.to_variables()
                self._checkpoint.write(str(folder / _PREFIX))
        except (OSError, tf.errors.OpError) as error:
            raise atomic_files.write_error(self._directory, error) from error
        for old in earlier[: -_KEEP + 1]:
            shutil.rmtree(old, ignore_errors=True)

    def _metadata(self) -> dict[str, Any]:
        model = self._checkpoint.model
        return {
            "classes": self._class_names,
            "weights": [[v.path, list(v.shape), v.dtype] for v in model.weights],
        }

    def _check_same(self, folder: pathlib.Path, metadata: dict[str, Any]) -> None:
        """Raises UsageError unless a checkpoint has the weights and classes of this model.

        TensorFlow restores by position: two layers of one shape that changed places would be
        restored into each other, silently.
        """
        expected = self._metadata()
        for key, name in (("weights", "network"), ("classes", "class list")):
            if metadata[key] != expected[key]:
                recorded, current = text_lib.first_difference(metadata[key], expected[key])
                raise errors.UsageError(
                    f"the checkpoint {folder} has another {name}: {recorded} instead of {current}. "
                    "Give another --run=NAME to start again."
                )

    def _bytes(self) -> int:
        """Size of a checkpoint, at four bytes per number."""
        model, optimizer = self._checkpoint.model, self._checkpoint.optimizer
        variables = [*model.variables, *optimizer.variables, *self._extra]
        return 4 * sum(int(np.prod(variable.shape)) for variable in variables)


def finished_epochs(directory: pathlib.Path) -> int | None:
    """The finished epochs of the latest checkpoint in a folder; None if it has none.

    Raises:
        RunError: it is damaged.
    """
    folders = _folders(directory)
    if not folders:
        return None
    try:
        return int(tf.train.load_variable(str(folders[-1] / _PREFIX), _EPOCH))
    except (IndexError, ValueError, tf.errors.OpError) as error:
        raise errors.RunError(
            f"the checkpoint {folders[-1]} is damaged ({text_lib.first_line(error)}): resume the "
            "training first, which continues from the one before it."
        ) from error


def _folders(directory: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints in a folder, oldest first."""
    if not directory.exists():
        return []
    return sorted(path for path in directory.iterdir() if path.name.isdigit())


def _unused(path: pathlib.Path) -> pathlib.Path:
    """A path that does not exist: `path`, or `path` with a number."""
    numbered = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
