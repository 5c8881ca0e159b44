"""Recorder of a phase: checkpoints, best weights, summaries, first images."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors, metrics, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.runs import checkpoints as checkpoints_lib
from cnnrnn.system import atomic_files
from cnnrnn.training import initial_weights, tensorboard, train_batch, training_batches


class Recorder:
    """Writes into the run folder. Of several workers the chief alone does.

    Args:
        phase, folder, data, network: what is trained.
        checkpoints: of the phase.
        writes: whether this process writes; otherwise nothing is done.
    """

    def __init__(
        self,
        phase: phases.Phase,
        folder: run_folder.RunFolder,
        data: dataset_lib.Dataset,
        network: network_lib.Network,
        checkpoints: checkpoints_lib.Checkpoints,
        writes: bool,
    ):
        self._phase, self._folder, self._data = phase, folder, data
        self._network, self._checkpoints = network, checkpoints
        self._writes = writes
        self._summaries: tensorboard.Summaries | None = None
        self._has_warned = False
        self._best_seen: float | None = None  # by this process, also if it could not be saved

    @contextlib.contextmanager
    def opened(self, *, steps_done: int, steps_validated: int) -> Iterator[None]:
        """Opens the event files in the block; see `tensorboard.Summaries`."""
        if not self._writes:
            yield
            return
        self._summaries = tensorboard.Summaries(
            self._folder, self._phase, steps_done=steps_done, steps_validated=steps_validated
        )
        try:
            yield
        except BaseException:
            with contextlib.suppress(tf.errors.OpError):
                self._summaries.close()
            raise
        self._attempt(self._summaries.close)

    def start(self, config: config_lib.Config, batches: training_batches.TrainingBatches) -> None:
        """Records the first images and the flags of a phase that starts.

        Raises:
            RunError: an image cannot be decoded.
        """
        if not self._writes:
            return
        first = batches.first()
        path = self._folder.train_batch(self._phase)
        drawn = train_batch.write(path, first, self._data.class_names)
        self._attempt(lambda: self._summaries.start(config, self._network, first, drawn))

    def batch_loss(self, loss: float, step: int) -> None:
        """Records the loss of a step."""
        if self._writes:
            self._attempt(lambda: self._summaries.batch_loss(loss, step))

    def keep_if_best(
        self, validation: metrics.Means, position: checkpoints_lib.Position, *, step: int
    ) -> bool:
        """Saves the weights if they are the best so far; returns whether they are.

        Args:
            validation: figures of the network's weights.
            position: its `best` and `best_epoch` are set.
            step: finished steps of an epoch that is not complete, else 0.

        Raises:
            RunError: the validation loss is not finite.
        """
        phase = self._phase
        if not np.isfinite(validation.loss):
            raise errors.RunError(
                f"the validation loss after epoch {position.epoch + 1} of {phase.name} is not "
                "finite. The epoch was not saved. A lower --learning_rate, with another --run, "
                "usually fixes it."
            )
        value = getattr(validation, phase.best_by)
        is_best = self._writes and phase.is_better(value, position.best)
        if is_best and (self._best_seen is None or phase.is_better(value, self._best_seen)):
            self._best_seen, position.best_epoch = value, position.epoch + 1
        is_best = is_best and self._checkpoints.attempt(
            lambda: best_weights.save(
                self._folder.best,
                phase,
                self._network.model,
                self._data.class_names,
                position.epoch + 1,
                validation,
                step=step,
            )
        )
        if is_best:
            position.best = value
        return is_best

    def epoch(
        self,
        train: metrics.Means,
        predictions: predictions_lib.Predictions,
        preprocessing: views_lib.Preprocessing,
        rates: dict[str, float],
        step: int,
    ) -> None:
        """Writes the summaries of an epoch.

        Args:
            train: means over its training images.
            predictions: for the validation images.
            preprocessing: of these.
            rates: see `tensorboard.Summaries.epoch`.
            step: steps done at its end.
        """
        if not self._writes:
            return
        summaries = self._summaries
        self._attempt(lambda: summaries.epoch(train, predictions.means, rates, step))
        self._attempt(lambda: summaries.predictions(self._data, predictions, preprocessing, step))

    def save(self) -> None:
        """Saves a checkpoint, after the summaries up to it.

        Raises:
            RunError: see `Checkpoints.save`.
        """
        if not self._writes:
            return
        self._attempt(self._summaries.flush)
        self._checkpoints.save()
        initial_weights.mark_checkpoint(self._folder, self._phase)

    def _attempt(self, write: Callable[[], None]) -> None:
        """Writes summaries, under --on_save_failure; warns once in a phase.

        Raises:
            RunError: they cannot be written, e.g. on a full disk.
        """

        def attempt() -> None:
            try:
                write()
            except tf.errors.OpError as error:
                if not self._has_warned:
                    raise atomic_files.write_error(self._folder.root, error) from error

        self._has_warned |= not self._checkpoints.attempt(attempt)
