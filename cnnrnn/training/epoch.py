"""One epoch of training: batch, step, totals, progress, and what can go wrong by its name."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors, metrics, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.runs import checkpoints
from cnnrnn.system import progress, stop_signals
from cnnrnn.training import steps, tensorboard

TrainStep = Callable[[steps.Batch], tuple[tf.Tensor, tf.Tensor]]

_BATCH_LOSS_EVERY = 10  # steps between two points of TensorBoard's batch_loss


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of an epoch, or of the part of it that was trained here.

    `waiting` is the share of the time, 0 to 1, in which training waited for the input pipeline.
    """

    means: metrics.Means
    images_per_second: float
    waiting: float

    def __str__(self) -> str:
        waiting = f", {self.waiting:.0%} of the time waiting for images"
        return (
            f"{self.means}  ({self.images_per_second:.1f} images/s"
            f"{waiting if self.waiting >= 0.01 else ''})"
        )


def train(
    split: dataset_lib.Split,
    config: config_lib.Config,
    phase: phases.Phase,
    schedule: phases.Schedule,
    position: checkpoints.Position,
    saver: checkpoints.Checkpoints,
    batches: Iterator[steps.Batch],
    train_step: TrainStep,
    writer: tensorboard.Summaries,
) -> Outcome:
    """Trains to the end of the epoch that `position` stands in.

    Raises:
        RunError: the loss or a gradient is not finite, or an image cannot be decoded.
    """
    epoch, first = position.epoch, position.step
    images = schedule.steps_per_epoch * schedule.batch_size
    later = (schedule.epochs - epoch - 1) * images
    label = f"{phase.name} epoch {epoch + 1}/{schedule.epochs}"
    waited, start = 0.0, time.monotonic()
    with progress.Progress(
        label, images, "images", initial=first * schedule.batch_size, later=later
    ) as bar:
        for step in range(first, schedule.steps_per_epoch):
            steps_done = epoch * schedule.steps_per_epoch + step
            asked = time.monotonic()
            batch = _next(
                batches, split, steps_done * schedule.batch_size, schedule, config.run.seed
            )
            waited += time.monotonic() - asked
            sums, not_finite = train_step(batch)
            sums = sums.numpy().astype(np.float64)
            overflow_expected = config.training.precision == "float16"  # such a step is left out
            if not np.isfinite(sums[0]) or (not_finite.numpy() > 0 and not overflow_expected):
                raise errors.RunError(
                    f"{'the loss' if not np.isfinite(sums[0]) else 'a gradient'} is not finite "
                    f"at step {step + 1} of epoch {epoch + 1} of {phase.name}. Nothing of that "
                    "step was saved. A lower --learning_rate, with another --run, usually mends it."
                )
            position.advance(sums)
            if (steps_done + 1) % _BATCH_LOSS_EVERY == 0:
                writer.batch_loss(sums[0] / sums[3], steps_done + 1)
            bar.update(
                (step + 1) * schedule.batch_size, str(metrics.Means.of_sums(position.totals))
            )
            stop_signals.check()
            if saver.is_due:
                writer.flush()
                saver.save()
        seconds = max(time.monotonic() - start, 1e-9)
        return Outcome(metrics.Means.of_sums(position.totals), bar.rate, waited / seconds)


def _next(
    batches: Iterator[steps.Batch],
    split: dataset_lib.Split,
    start: int,
    schedule: phases.Schedule,
    seed: int,
) -> steps.Batch:
    try:
        return next(batches)
    except tf.errors.OpError as error:
        rows = input_pipeline.indices_at(start, schedule.batch_size, len(split), seed)
        raise input_pipeline.decoding_error(split, rows, error) from error
