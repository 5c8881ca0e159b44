"""What a phase goes on from, and the best weights it has found.

A checkpoint is everything that decides the next step: weights, optimizer, position, the sums of
the open epoch, the best figure so far. The best weights are a single HDF5 file that Keras loads,
and a JSON file that names it: the JSON is renamed into place last, so it always names a whole one.
"""

import dataclasses
import json
import pathlib
import shutil
import time

import keras
import numpy as np
import tensorflow as tf

from cnnrnn import atomic_file, errors, metrics, phases
from cnnrnn import loss_scale as loss_scale_lib

_KEEP = 2
_WHOLE = "What was saved before is whole: mend that and give the same command again."


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
        minutes: `save_if_due` saves when this long has passed since the last.
        loss_scale: float16's, if there is one.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        position: Position,
        minutes: float,
        loss_scale: loss_scale_lib.LossScale | None = None,
    ):
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=optimizer,
            **position.trackables(),
            **(loss_scale.trackables() if loss_scale else {}),
        )
        self._manager: tf.train.CheckpointManager | None = None
        self._seconds = minutes * 60
        self._saved_at = time.monotonic()

    def restore(self) -> str | None:
        """Restores the latest checkpoint.

        Returns:
            Its path, or None if there is none.

        Raises:
            RunError: there are checkpoints but none can be read. Never a silent fresh start.
        """
        left_over = sorted(self._directory.glob("*.index")) if self._directory.exists() else []
        try:
            latest = tf.train.latest_checkpoint(str(self._directory))
            if latest is None and left_over:
                raise ValueError("the file 'checkpoint', which names the latest, is damaged")
            if latest is not None:
                self._checkpoint.restore(latest).assert_consumed()
        except (ValueError, IndexError, AssertionError, tf.errors.OpError) as error:
            raise errors.RunError(
                f"the checkpoint in {self._directory} cannot be restored: "
                f"{str(error).splitlines()[0]}. Put the files back, or train afresh under another "
                "--run=NAME."
            ) from error
        self._directory.mkdir(parents=True, exist_ok=True)
        for half_written in self._directory.glob("*_temp"):  # by a process that was killed
            shutil.rmtree(half_written, ignore_errors=True)
        # Made only now: a manager that saves before a restore would count from 1 again and
        # delete what is there.
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(self._directory), max_to_keep=_KEEP
        )
        self._saved_at = time.monotonic()
        return latest

    def save(self) -> None:
        """Writes a checkpoint; the one before stays until this one is whole.

        Raises:
            RunError: it cannot be written, e.g. because the disk is full.
        """
        _check_room(self._directory, self._bytes())
        try:
            self._manager.save()
        except (OSError, tf.errors.OpError) as error:
            raise _save_error(self._directory, error) from error
        self._saved_at = time.monotonic()

    def save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= self._seconds:
            self.save()

    def _bytes(self) -> int:
        """What one checkpoint takes: each number is four bytes."""
        model, optimizer = self._checkpoint.model, self._checkpoint.optimizer
        variables = [*model.variables, *optimizer.variables]
        return 4 * sum(int(np.prod(variable.shape)) for variable in variables)


@dataclasses.dataclass(frozen=True)
class Best:
    """The best weights of a phase: their file, the epoch (from 1) and the validation figures."""

    weights: pathlib.Path
    classes: int
    phase: str
    epoch: int
    validation: metrics.Means


def save_best(
    directory: pathlib.Path,
    phase: phases.Phase,
    model: keras.Model,
    epoch: int,
    validation: metrics.Means,
) -> None:
    """Replaces a phase's best weights.

    Raises:
        RunError: they cannot be written; the ones before stay.
    """
    weights = directory / f"{phase.name}-epoch{epoch:04d}.weights.h5"
    record = {
        "weights": weights.name,
        "classes": model.output_shape[-1],
        "phase": phase.name,
        "epoch": epoch,
        "validation": validation.to_json(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    _check_room(directory, 4 * model.count_params())
    try:
        with atomic_file.replacing(weights) as temporary:
            model.save_weights(temporary)
        atomic_file.write_json(directory / f"{phase.name}.json", record)
    except OSError as error:
        raise _save_error(directory, error) from error
    # The ones before, and what a process that was killed has left half written.
    for old in directory.glob(f"*{phase.name}-epoch*.weights.h5"):
        if old != weights:
            old.unlink()


def find_best(directory: pathlib.Path, phase: phases.Phase) -> Best | None:
    """The best weights that a phase has left in a folder, None if it has left none.

    Raises:
        RunError: its record is damaged, or names a file that is not there.
    """
    path = directory / f"{phase.name}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["weights"] = directory / record["weights"]
        best = Best(**record | {"validation": metrics.Means(**record["validation"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.RunError(f"{path} is damaged ({error}): train the phase again.") from error
    if not best.weights.is_file():
        raise errors.RunError(f"{path} names {best.weights.name}, which is gone: train again.")
    return best


def latest_best(directory: pathlib.Path) -> Best:
    """The best weights of the last phase that has any.

    Raises:
        UsageError: there are none.
    """
    for phase in reversed(phases.BY_NAME.values()):
        best = find_best(directory, phase)
        if best is not None:
            return best
    raise errors.UsageError(
        f"there are no trained weights in {directory}: run phase1 first, with the same flags, or "
        "name a run that has been trained (--run, --runs_dir, --init_from)."
    )


def load_best(best: Best, model: keras.Model) -> None:
    """Fills a model with best weights.

    Raises:
        UsageError: they are of another network, e.g. of another number of classes.
        RunError: the file is damaged.
    """
    classes = model.output_shape[-1]
    if best.classes != classes:
        raise errors.UsageError(
            f"{best.weights} is of {best.classes} classes, the data set has {classes}: name a run "
            "that was trained on the same classes."
        )
    try:
        model.load_weights(best.weights)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise errors.RunError(f"{best.weights} is damaged: {error}") from error


def _check_room(directory: pathlib.Path, size: int) -> None:
    """Raises RunError if a disk has no room for `size` bytes.

    Asked beforehand because HDF5, on a full disk, fails late and more than once.
    """
    free = shutil.disk_usage(directory).free
    if free < size * 1.02:
        raise errors.RunError(
            f"cannot save to {directory}: it takes {size / 1e6:,.0f} MB and {free / 1e6:,.0f} MB "
            f"are free. {_WHOLE}"
        )


def _save_error(directory: pathlib.Path, error: Exception) -> errors.RunError:
    reason = str(getattr(error, "message", None) or error).splitlines()[0]
    return errors.RunError(f"cannot save to {directory}: {reason}. {_WHOLE}")
