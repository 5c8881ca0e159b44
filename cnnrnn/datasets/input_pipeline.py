"""tf.data pipelines: order -> read -> decode -> views -> batch.

Each sample of a run is a pure function of its position: which image it is (see `sampling`), and
what is drawn for it (see `training_samples`).
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.datasets import image_check, splits
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import deletion
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import text as text_lib
from cnnrnn.system import workers as workers_lib


class Features(Protocol):
    """Cached CNN features of a split."""

    def of(self, indices: tf.Tensor) -> tf.Tensor:
        """Reads features in a pipeline: (B,) int64 indices in the split -> (B, 2048) float32."""


class ConstantFeatures:
    """Stands in for features whose values do not matter.

    Args:
        width: of one image's features.
    """

    def __init__(self, width: int):
        self._width = width

    def of(self, indices: tf.Tensor) -> tf.Tensor:
        return tf.fill((indices.shape[0], self._width), 0.5)


def training(
    split: splits.Split,
    samples: training_samples_lib.TrainingSamples,
    *,
    batch_size: int,
    start: int,
    features: Features | None = None,
    share: workers_lib.Share = workers_lib.WHOLE,
) -> tf.data.Dataset:
    """Endless batches of training samples, beginning at position `start` of the run.

    Args:
        split: the examples.
        samples: their order, and from a decoded image to the inputs.
        batch_size: B.
        start: position of the first sample in the order.
        features: cached CNN features, which replace the RGB view; of each view of each image, if
            there are several.
        share: the part of each batch that is read.

    Returns:
        A dataset of {"image": (B, S, S, 3) float32, "sequence": (B, 23, 3887) float32,
        "label": (B,) int64, "weight": (B,) float32 of ones, "index": (B,) int64 in the split}.
        With `features`, "features" (B, 2048) float32 replaces "image". With mixing and dropout, in
        addition what `Mixing.apply` and `TrainingSamples.draws` add.
    """
    numbers = tf.data.Dataset.range(tf.int64.max, output_type=tf.int64)

    def sample(number):
        position = start + share.place(number, batch_size)
        index = samples.order.index_at(position)
        sample = {"index": index, "weight": 1.0}
        if samples.augmentation.changes_anything:
            sample["view"] = samples.view_at(position, index)
        if samples.has_draws:  # besides the view
            sample["position"] = position
        return sample

    size = share.size(batch_size)
    batches = _batches(split, numbers.map(sample), samples.example, size, features)
    if samples.mixing.is_on:
        batches = batches.map(samples.mixing.apply)
    return _prefetched(batches)


def views(
    split: splits.Split,
    samples: training_samples_lib.TrainingSamples,
    numbers: np.ndarray,
    batch_size: int,
    share: workers_lib.Share = workers_lib.WHOLE,
) -> tf.data.Dataset:
    """Some of the counted views of the images, in order; the last batch is padded with view 0.

    Args:
        split: the examples.
        samples: with K views of each image, `TrainingSamples.view_count`.
        numbers: (n,) int64; v of image i is number i * K + v.
        batch_size: B.
        share: the part of each batch that is read.

    Returns:
        A dataset of batches as those of `training`, without what is drawn for positions.
    """
    padded = _padded(numbers, batch_size)
    data = tf.data.Dataset.from_tensor_slices(_shared(padded, batch_size, share))
    chosen = data.map(lambda n: {"index": n // samples.view_count, "weight": 1.0, "view": n})
    return _prefetched(_batches(split, chosen, samples.example, share.size(batch_size), None))


def evaluation(
    split: splits.Split,
    *,
    batch_size: int,
    preprocessing: views_lib.Preprocessing,
    features: Features | None = None,
    repeats: bool = False,
    share: workers_lib.Share = workers_lib.WHOLE,
) -> tf.data.Dataset:
    """Every example once, in order; the last batch is padded with examples of weight 0.

    All batches have the same size, since a replica without any example breaks convolutions.

    Args:
        split: the examples.
        batch_size: B.
        preprocessing: from a decoded image to the inputs.
        features: cached CNN features, which replace the RGB view.
        repeats: whether another pass follows each, without end.
        share: the part of each batch that is read.

    Returns:
        A dataset of batches like those of `training`, ceil(N / B) of them in a pass.
    """
    columns = {"index": np.arange(len(split)), "weight": np.ones(len(split), np.float32)}
    chosen = tf.data.Dataset.from_tensor_slices(
        {name: _shared(_padded(c, batch_size), batch_size, share) for name, c in columns.items()}
    )
    if repeats:
        chosen = chosen.repeat()  # before the images are read, which goes on without a pause

    def example(image, _, *, cached):
        if cached:
            return {"sequence": preprocessing.sequence(image)}
        return preprocessing.inputs(image)

    return _prefetched(_batches(split, chosen, example, share.size(batch_size), features))


def _padded(column: np.ndarray, batch_size: int) -> np.ndarray:
    """A column (N,) with zeros up to whole batches."""
    return np.pad(column, (0, -len(column) % batch_size))


def _shared(column: np.ndarray, batch_size: int, share: workers_lib.Share) -> np.ndarray:
    """The part of a column (N,) of whole batches that a worker reads."""
    batches = column.reshape(-1, share.count, share.size(batch_size))
    return batches[:, share.index].reshape(-1)


def examples(split: splits.Split, preprocessing: views_lib.Preprocessing) -> dict[str, np.ndarray]:
    """All examples of a small split as one batch; see `training`.

    Raises:
        RunError: an image cannot be decoded.
    """
    batches = evaluation(split, batch_size=len(split), preprocessing=preprocessing)
    with naming_bad_images(split, lambda: np.arange(len(split))):
        return next(batches.as_numpy_iterator())


def _batches(split, chosen, make_example, batch_size, features) -> tf.data.Dataset:
    """Batches of chosen samples.

    Args:
        split: the examples.
        chosen: a dataset of samples: "index" () int64, "weight" () float32, and what
            `make_example` needs.
        make_example: from a decoded image and its sample to inputs, and `cached`, whether features
            replace the RGB view.
        batch_size: B.
        features: see `training`.
    """
    cached = features is not None

    def example(sample):
        encoded, label = split.fetch(sample["index"])
        image = views_lib.decode(encoded)
        example = {"label": label, "index": sample["index"], "weight": sample["weight"]}
        if cached and "view" in sample:
            example["view"] = sample["view"]
        return {**make_example(image, sample, cached=cached), **example}

    def with_features(batch):
        numbers = batch.pop("view", batch["index"])
        return {**batch, "features": features.of(numbers)}

    batches = chosen.map(example, num_parallel_calls=os.cpu_count()).batch(
        batch_size, drop_remainder=True
    )
    return batches.map(with_features) if cached else batches


def _prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
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
    """An iterator over the batches, each divided among the replicas of this process.

    With several workers the batches are this one's share.

    `experimental_distribute_dataset` adds a pipeline on each device that tf.data tunes. No option
    turns that off: neither those of `batches` nor tf.distribute.InputOptions reach it. The deletion
    of such an iterator waits for the tuning thread, seen to take 16 s. With one replica on a CPU
    these pipelines are not needed.
    """
    workers = workers_lib.Workers(strategy)
    replicas = strategy.num_replicas_in_sync // workers.count
    if replicas == 1 and not devices_lib.gpus():
        return iter(batches)
    if workers.count == 1:
        return _DeletedInBackground(iter(strategy.experimental_distribute_dataset(batches)))
    size = batches.element_spec["index"].shape[0] // replicas
    parts = batches.rebatch(size, drop_remainder=True)
    return _DeletedInBackground(iter(strategy.distribute_datasets_from_function(lambda _: parts)))


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


@contextlib.contextmanager
def naming_bad_images(split: splits.Split, indices: Callable[[], np.ndarray]) -> Iterator[None]:
    """Names the image that made the pipeline fail in the block, which asks it for a batch.

    Args:
        split: the examples.
        indices: returns the indices of the batch, (B,) int64; called after a failure only.

    Raises:
        RunError: an image cannot be decoded, or the pipeline failed otherwise.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError:  # out of memory, which no image is to blame for
        raise
    except tf.errors.OpError as error:
        raise _decoding_error(split, indices(), error) from error


def _decoding_error(
    split: splits.Split, indices: np.ndarray, error: tf.errors.OpError
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
