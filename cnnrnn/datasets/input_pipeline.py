"""tf.data pipelines: order -> read -> decode -> views -> batch.

The order of training is a pure function of (seed, position): sample number p of a run is row
`index_shuffle(p mod N)` of permutation number p // N. So a resumed run needs two integers and no
iterator state, a skip costs nothing, nothing is held in memory to shuffle, and when an epoch is
shorter than the data (or no multiple of the batch) the next one draws on where it stopped.
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
from cnnrnn.system import text as text_lib


class Features(Protocol):
    """What the CNN makes of each image of a split, kept from an earlier pass."""

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        """Maps (B,) int64 rows of the split to (B, 2048) float32, inside a pipeline."""


def index_at(position: tf.Tensor, rows: int, seed: int) -> tf.Tensor:
    """The row that is drawn as sample number `position` of a run.

    Args:
        position: () int64, counted from the run's first sample.
        rows: number of rows, N.
        seed: the run's seed.

    Returns:
        () int64 in [0, N).
    """
    permutation, offset = position // rows, position % rows
    key = tf.stack([tf.constant(seed, tf.int64), permutation])
    return tf.random.experimental.index_shuffle(offset, key, tf.constant(rows - 1, tf.int64))


def indices_at(start: int, count: int, rows: int, seed: int) -> np.ndarray:
    """The rows that are drawn as samples `start` to `start + count - 1`; see `index_at`."""
    positions = tf.range(start, start + count, dtype=tf.int64)
    return np.array([index_at(position, rows, seed).numpy() for position in positions])


def training(
    split: dataset_lib.Split,
    *,
    batch_size: int,
    start: int,
    seed: int,
    preprocessing: views_lib.Preprocessing,
    features: Features | None = None,
) -> tf.data.Dataset:
    """Endless shuffled batches, from sample number `start` of the run on.

    Args:
        split: what to draw from.
        batch_size: B.
        start: how many samples were drawn before.
        seed: of the order.
        preprocessing: makes the inputs of each decoded image.
        features: what the CNN makes of each image; then its RGB view is not made.

    Returns:
        A dataset of {"image": (B, 299, 299, 3) float32, "sequence": (B, 23, 3887) float32,
        "label": (B,) int64, "weight": (B,) float32 of ones, "index": (B,) int64 in the split}.
        With `features`, "features" (B, 2048) float32 stands in the place of "image".
    """
    last = tf.int64.max
    positions = tf.data.Dataset.range(start, last, output_type=tf.int64)
    rows = positions.map(lambda position: (index_at(position, len(split), seed), 1.0))
    return _batches(split, rows, batch_size, preprocessing, features)


def evaluation(
    split: dataset_lib.Split,
    *,
    batch_size: int,
    preprocessing: views_lib.Preprocessing,
    features: Features | None = None,
) -> tf.data.Dataset:
    """Every example once, in order; the last batch is filled up with examples of weight 0.

    Padding keeps every batch whole, since a replica without any example breaks convolutions.

    Returns:
        A finite dataset of batches as `training` makes them.
    """
    padding = -len(split) % batch_size
    rows = np.concatenate([np.arange(len(split)), np.zeros(padding, np.int64)])
    weights = np.concatenate([np.ones(len(split), np.float32), np.zeros(padding, np.float32)])
    rows_and_weights = tf.data.Dataset.from_tensor_slices((rows, weights))
    return _batches(split, rows_and_weights, batch_size, preprocessing, features)


def examples(
    split: dataset_lib.Split, preprocessing: views_lib.Preprocessing
) -> dict[str, np.ndarray]:
    """All examples of a small split as one batch; see `training`."""
    batches = evaluation(split, batch_size=len(split), preprocessing=preprocessing)
    return next(batches.as_numpy_iterator())


def _batches(split, rows_and_weights, batch_size, preprocessing, features) -> tf.data.Dataset:
    def views(row, weight):
        encoded, label = split.fetch(row)
        image = views_lib.decode(encoded)
        example = {"label": label, "index": row, "weight": weight}
        if features is not None:
            return {"sequence": preprocessing.sequence(image), **example}
        return {**preprocessing.inputs(image), **example}

    def with_features(batch):
        return {**batch, "features": features.of(batch["index"])}

    batches = rows_and_weights.map(views, num_parallel_calls=os.cpu_count()).batch(
        batch_size, drop_remainder=True
    )
    if features is not None:
        batches = batches.map(with_features)
    return batches.prefetch(2).with_options(options())


def options() -> tf.data.Options:
    """For one image a core and two batches ahead.

    The work is the processor's, so there is nothing for tf.data to tune, and its tuning thread can
    hold up the end of an iterator for seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return options


def distribute(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterator:
    """An iterator over the batches, each shared out to the replicas.

    One replica on a CPU takes them as they come. `experimental_distribute_dataset` would wrap them
    in a pipeline of its own, whose tuning cannot be turned off, and whose end often waits for its
    tuning thread: 18 s were seen where it had run for 23 s, and up to a minute is possible, after
    each pass over the validation images.
    """
    if strategy.num_replicas_in_sync == 1 and not tf.config.list_physical_devices("GPU"):
        return iter(batches)
    return iter(strategy.experimental_distribute_dataset(batches))


def decoding_error(
    split: dataset_lib.Split, rows: np.ndarray, error: tf.errors.OpError
) -> errors.RunError:
    """Finds which image made a batch fail, by decoding the batch's images one at a time.

    tf.data names the op that failed and never the file. The order is known, so the file is found
    afterwards and a run without faults pays nothing.

    Args:
        split: what the batch was read from.
        rows: the rows of the batch that failed, in order.
        error: what the pipeline raised.

    Returns:
        The error to raise: it names the file and its class, or, when every image of the batch
        decodes by itself, gives the pipeline's own message.
    """
    for row in rows:
        try:
            for encoded, _ in tf.data.Dataset.from_tensors(int(row)).map(split.fetch):
                views_lib.decode(encoded)
        except tf.errors.OpError as cause:
            return errors.RunError(
                f"cannot decode {split.describe(int(row))}: {image_check.reason(cause)}. It has "
                "changed since it was checked: put it back as it was. A run that has begun goes "
                "on only with the very same images."
            )
    return errors.RunError(f"the input pipeline failed: {text_lib.first_line(error)}")
