"""The batches of a phase, in order, each part of the phase in its own image size."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.training import size_schedule

Samples = training_samples_lib.TrainingSamples
# The cached features of the samples of a part of the phase, None if there are none.
FeaturesOf = Callable[[Samples, size_schedule.Part], input_pipeline.Features | None]

_SHOWN = 16  # images of the first batch


class TrainingBatches:
    """An iterator over the batches from one step of a phase on.

    Args:
        split: the training images.
        samples: their order and changes; its image size is replaced by that of each part.
        sizes: image sizes of the CNN over the steps.
        batch_size: images per step, over all replicas.
        strategy: each batch is divided among its replicas.
        features_of: called when a part begins.
    """

    def __init__(
        self,
        split: dataset_lib.Split,
        samples: Samples,
        sizes: size_schedule.SizeSchedule,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        features_of: FeaturesOf,
    ):
        self._split, self._samples, self._sizes = split, samples, sizes
        self._batch_size, self._strategy, self._features_of = batch_size, strategy, features_of
        self._step = 0
        self._part: size_schedule.Part | None = None
        self._iterator: Iterator[dict[str, tf.Tensor]] = iter(())

    def start_at(self, step: int) -> None:
        """Makes `step` the next one, and prepares its part of the phase."""
        self._step, self._part = step, None
        self._open(self._sizes.at(step))

    @property
    def part(self) -> size_schedule.Part:
        """The part of the phase that the last batch belongs to."""
        return self._part

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> dict[str, tf.Tensor]:
        """The batch of the next step.

        Raises:
            RunError: an image cannot be decoded.
        """
        part = self._sizes.at(self._step)
        if part is not self._part:
            self._open(part)
        try:
            batch = next(self._iterator)
        except tf.errors.OpError as error:
            start = self._step * self._batch_size
            indices = self._samples.order.indices_at(start, self._batch_size)
            raise input_pipeline.decoding_error(self._split, indices, error) from error
        self._step += 1
        return batch

    def first(self) -> dict[str, np.ndarray]:
        """The first samples of the phase, as the network sees them.

        Raises:
            RunError: an image cannot be decoded.
        """
        count = min(_SHOWN, self._batch_size)
        samples = self._samples_of(self._sizes.at(0))
        batches = input_pipeline.training(self._split, samples, batch_size=count, start=0)
        try:
            return next(batches.as_numpy_iterator())
        except tf.errors.OpError as error:
            indices = self._samples.order.indices_at(0, count)
            raise input_pipeline.decoding_error(self._split, indices, error) from error

    def _open(self, part: size_schedule.Part) -> None:
        """Starts the pipeline of a part; the previous one ends first, with its threads."""
        self._iterator = iter(())
        self._part = part
        if len(self._sizes.parts) > 1:
            logging.info(
                f"images of {part.size}x{part.size} for the CNN in steps {part.start + 1:,} to "
                f"{part.end:,}"
            )
        samples = self._samples_of(part)
        batches = input_pipeline.training(
            self._split,
            samples,
            batch_size=self._batch_size,
            start=self._step * self._batch_size,
            features=self._features_of(samples, part),
        )
        self._iterator = input_pipeline.distribute(batches, self._strategy)

    def _samples_of(self, part: size_schedule.Part) -> Samples:
        preprocessing = dataclasses.replace(self._samples.preprocessing, image_size=part.size)
        return dataclasses.replace(self._samples, preprocessing=preprocessing)
