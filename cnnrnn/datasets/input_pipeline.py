"""tf.data pipelines: order -> read -> decode -> views -> batch.

The order of training is a pure function of (seed, position): the sample at position p of a run has
the index `index_shuffle(p mod N)` in permutation p // N. So a resumed run needs two integers and no
iterator state, skipping costs nothing, and shuffling needs no buffer. When an epoch is shorter than
the data, or not a multiple of the batch size, the next one continues where it ended.
"""

import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import image_check
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import deletion
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import text as text_lib


class Features(Protocol):
    """Cached CNN features of a split."""

    def of(self, indices: tf.Tensor) -> tf.Tensor:
        """Reads features in a pipeline: (B,) int64 indices in the split -> (B, 2048) float32."""


def index_at(position: tf.Tensor, size: int, seed: int) -> tf.Tensor:
    """The index of the sample at a position of a run.

    Args:
        position: () int64, counted from the run's first sample.
        size: number of examples, N.
        seed: the run's seed.

    Returns:
        () int64 in [0, N).
    """
    permutation, offset = position // size, position % size
    key = tf.stack([tf.constant(seed, tf.int64), permutation])
    return tf.random.experimental.index_shuffle(offset, key, tf.constant(size - 1, tf.int64))


def indices_at(start: int, count: int, size: int, seed: int) -> np.ndarray:
    """(count,) indices of the samples at `start` and the positions after it; see `index_at`."""
    with devices_lib.on_cpu():
        positions = tf.range(start, start + count, dtype=tf.int64)
        return np.array([index_at(position, size, seed).numpy() for position in positions])


def training(
    split: dataset_lib.Split,
    *,
    batch_size: int,
    start: int,
    seed: int,
    preprocessing: views_lib.Preprocessing,
    features: Features | None = None,
) -> tf.data.Dataset:
    """Endless shuffled batches, beginning at position `start` of the run.

    Args:
        split: the examples.
        batch_size: B.
        start: number of samples drawn earlier in the run.
        seed: of the order.
        preprocessing: from a decoded image to the inputs.
        features: cached CNN features, which replace the RGB view.

    Returns:
        A dataset of {"image": (B, 299, 299, 3) float32, "sequence": (B, 23, 3887) float32,
        "label": (B,) int64, "weight": (B,) float32 of ones, "index": (B,) int64 in the split}.
        With `features`, "features" (B, 2048) float32 replaces "image".
    """
    last = tf.int64.max
    positions = tf.data.Dataset.range(start, last, output_type=tf.int64)
    samples = positions.map(lambda position: (index_at(position, len(split), seed), 1.0))
    return _batches(split, samples, batch_size, preprocessing, features)


def evaluation(
    split: dataset_lib.Split,
    *,
    batch_size: int,
    preprocessing: views_lib.Preprocessing,
    features: Features | None = None,
    repeats: bool = False,
) -> tf.data.Dataset:
    """Every example once, in order; the last batch is padded with examples of weight 0.

    All batches have the same size, since a replica without any example breaks convolutions.

    Args:
        split: the examples.
        batch_size: B.
        preprocessing: from a decoded image to the inputs.
        features: cached CNN features, which replace the RGB view.
        repeats: whether another pass follows each, without end.

    Returns:
        A dataset of batches like those of `training`, ceil(N / B) of them in a pass.
    """
    padding = -len(split) % batch_size
    indices = np.concatenate([np.arange(len(split)), np.zeros(padding, np.int64)])
    weights = np.concatenate([np.ones(len(split), np.float32), np.zeros(padding, np.float32)])
    samples = tf.data.Dataset.from_tensor_slices((indices, weights))
    if repeats:
        samples = samples.repeat()  # before the images are read, which goes on without a pause
    return _batches(split, samples, batch_size, preprocessing, features)


def examples(
    split: dataset_lib.Split, preprocessing: views_lib.Preprocessing
) -> dict[str, np.ndarray]:
    """All examples of a small split as one batch; see `training`.

    Raises:
        RunError: an image cannot be decoded.
    """
    batches = evaluation(split, batch_size=len(split), preprocessing=preprocessing)
    try:
        return next(batches.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise decoding_error(split, np.arange(len(split)), error) from error


def _batches(split, samples, batch_size, preprocessing, features) -> tf.data.Dataset:
    """Batches of a dataset of samples: index () int64, weight () float32."""

    def views(index, weight):
        encoded, label = split.fetch(index)
        image = views_lib.decode(encoded)
        example = {"label": label, "index": index, "weight": weight}
        if features is not None:
            return {"sequence": preprocessing.sequence(image), **example}
        return {**preprocessing.inputs(image), **example}

    def with_features(batch):
        return {**batch, "features": features.of(batch["index"])}

    batches = samples.map(views, num_parallel_calls=os.cpu_count()).batch(
        batch_size, drop_remainder=True
    )
    if features is not None:
        batches = batches.map(with_features)
    return batches.prefetch(2).with_options(options())


def options() -> tf.data.Options:
    """Deterministic, without autotuning.

    Preprocessing is limited by the CPU: one image per core is right, and there is nothing to tune.
    The tuning thread can delay the end of an iterator by seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return options


def distribute(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterator:
    """An iterator over the batches, each divided among the replicas.

    `experimental_distribute_dataset` adds a pipeline on each device that tf.data tunes. No option
    turns that off: neither those of `batches` nor tf.distribute.InputOptions reach it. The deletion
    of such an iterator waits for the tuning thread, seen to take 16 s. With one replica on a CPU
    these pipelines are not needed.
    """
    if strategy.num_replicas_in_sync == 1 and not devices_lib.gpus():
        return iter(batches)
    return _DeletedInBackground(iter(strategy.experimental_distribute_dataset(batches)))


class _DeletedInBackground:
    """An iterator that nothing waits for when it is deleted."""

    def __init__(self, iterator: Iterator):
        self._iterators = [iterator]

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> dict[str, tf.Tensor]:
        return next(self._iterators[0])

    def __del__(self):
        deletion.in_background(self._iterators)


def decoding_error(
    split: dataset_lib.Split, indices: np.ndarray, error: tf.errors.OpError
) -> errors.RunError:
    """Finds the image that made a batch fail, by decoding the batch's images one at a time.

    tf.data names the op that failed, not the file. As the order is known, the file is found
    afterwards, at no cost to runs without errors.

    Args:
        split: the examples.
        indices: (B,) int64, the indices of the batch that failed.
        error: raised by the pipeline.

    Returns:
        The error to raise. It names the file and its class, or gives the pipeline's own message if
        every image of the batch decodes.
    """
    for index in indices:
        try:
            with devices_lib.on_cpu():
                for encoded, _ in tf.data.Dataset.from_tensors(int(index)).map(split.fetch):
                    views_lib.decode(encoded)
        except tf.errors.OpError as cause:
            return errors.RunError(
                f"cannot decode {split.describe(int(index))}: {image_check.reason(cause)}. It has "
                "changed since it was checked: restore it. A run resumes only with exactly the "
                "same images."
            )
    return errors.RunError(f"the input pipeline failed: {text_lib.first_line(error)}")
