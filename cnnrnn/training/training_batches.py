"""The batches of a phase, in order, each part of the phase in its own image size."""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn.datasets import input_pipeline, splits
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import feature_cache, phase_features, size_schedule

_SHOWN = 16  # images of the first batch


class TrainingBatches:
    """An iterator over the batches from one step of a phase on.

    Args:
        split: the training images.
        samples: their order and changes; its image size is replaced by that of each part.
        sizes: image sizes of the CNN over the steps.
        batch_size: images per step, over all replicas.
        strategy: each batch is divided among its replicas.
        features: cached ones are used where they pay off for a part.
    """

    def __init__(
        self,
        split: splits.Split,
        samples: training_samples_lib.TrainingSamples,
        sizes: size_schedule.SizeSchedule,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        features: phase_features.PhaseFeatures,
    ):
        self._split, self._samples, self._sizes = split, samples, sizes
        self._batch_size, self._strategy, self._features = batch_size, strategy, features
        self._step = 0
        self.runs_cnn = True  # in this part, for whose images no features are given
        self._part: size_schedule.Part | None = None
        self._iterator: Iterator[dict[str, tf.Tensor]] = iter(())

    def start_at(self, step: int) -> None:
        """Makes `step` the next one, and begins its part of the phase."""
        self._step = step
        self.begin_part()

    @property
    def begins_a_part(self) -> bool:
        """Whether `begin_part` is to be called before the next batch."""
        return self._part != self._sizes.at(self._step)

    @property
    def _next_sample(self) -> int:
        """The position of the next step's first sample in the order."""
        return self._samples.first + self._step * self._batch_size

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> dict[str, tf.Tensor]:
        """The batch of the next step.

        Raises:
            RunError: an image cannot be decoded.
        """
        with self._naming_bad_images(self._next_sample, self._batch_size):
            batch = next(self._iterator)
        self._step += 1
        return batch

    def first(self) -> dict[str, np.ndarray]:
        """The first samples of the phase, as the network sees them.

        Raises:
            RunError: an image cannot be decoded.
        """
        count = min(_SHOWN, self._batch_size)
        samples = self._samples.of_size(self._sizes.at(0).size)
        start = samples.first
        batches = input_pipeline.training(self._split, samples, batch_size=count, start=start)
        with self._naming_bad_images(start, count):
            return next(batches.as_numpy_iterator())

    def _naming_bad_images(self, start: int, count: int) -> contextlib.AbstractContextManager:
        """`input_pipeline.naming_bad_images` for `count` samples from a position on."""
        indices = functools.partial(self._samples.order.indices_at, start, count)
        return input_pipeline.naming_bad_images(self._split, indices)

    def begin_part(self) -> None:
        """Starts the pipeline of the part of the next step; in phase 1 this may compute features.

        Raises:
            RunError: an image cannot be decoded, or features cannot be written.
            Stopped: by a signal.
        """
        self._iterator = iter(())  # the previous pipeline ends first, with its threads
        self._part = part = self._sizes.at(self._step)
        if len(self._sizes.parts) > 1:
            logging.info(
                f"images of {part.size}x{part.size} for the CNN in steps {part.start + 1:,} to "
                f"{part.end:,}"
            )
        samples = self._samples.of_size(part.size)
        steps_left = part.end - self._step
        passes = feature_cache.passes_over(steps_left, self._batch_size, len(self._split))
        features = self._features.of_training(self._split, samples, passes)
        self.runs_cnn = features is None
        batches = input_pipeline.training(
            self._split,
            samples,
            batch_size=self._batch_size,
            start=self._next_sample,
            features=features,
            share=workers_lib.Workers(self._strategy).share,
        )
        self._iterator = input_pipeline.distribute(batches, self._strategy)
