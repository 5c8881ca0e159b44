"""`Split`, the examples of a split, and the ways to divide a data set into splits."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import example_source


@dataclasses.dataclass(frozen=True)
class Split:
    """The training or the validation examples. Methods take an index from 0 to N - 1.

    Attributes:
        source: what the examples are read from.
        indices: (N,) int64, the index in `source` of each example.
        labels: (N,) int64.
        infos: (N,) objects, each an `image_check.ImageInfo`.
    """

    source: example_source.ExampleSource
    indices: np.ndarray
    labels: np.ndarray
    infos: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def fetch(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads an example in a pipeline: () int64 -> encoded () string, label () int64."""
        with tf.init_scope():
            indices, labels = tf.constant(self.indices), tf.constant(self.labels)
        return self.source.fetch(tf.gather(indices, index)), tf.gather(labels, index)

    def describe(self, index: int) -> str:
        """An example's file or name and its class, for messages."""
        return self.source.describe(int(self.indices[index]))

    def path(self, index: int) -> str:
        """The file of an example, '' if it is not stored in a file of its own."""
        return self.source.path(int(self.indices[index]))

    def take(self, indices: np.ndarray) -> "Split":
        """The split of the examples at `indices`."""
        return Split(self.source, self.indices[indices], self.labels[indices], self.infos[indices])

    def count_in(self, other: "Split") -> int:
        """How many of the images another split has, too, byte for byte."""
        digests = set(map(bytes, other.digests))
        return sum(bytes(digest) in digests for digest in self.digests)

    @property
    def problems(self) -> np.ndarray:
        """(N,) bool: which examples cannot be trained on."""
        return np.array([bool(info.problem) for info in self.infos], bool)

    @property
    def digests(self) -> np.ndarray:
        """(N, 32) uint8: SHA-256 of each encoded image."""
        digests = bytes.fromhex("".join(info.sha256 for info in self.infos))
        return np.frombuffer(digests, np.uint8).reshape(-1, hashlib.sha256().digest_size)


def cut(
    split: Split, config: config_lib.Config, class_names: tuple[str, ...]
) -> tuple[Split, Split]:
    """Cuts a validation split out of the training images, class by class."""
    validation = []
    for label, indices in _indices_by_class(split):
        count = round(config.data.validation_fraction * len(indices))
        if len(indices) < 2:
            raise errors.UsageError(
                f"the class {class_names[label]!r} has one image: a split into training and "
                "validation needs at least two of each class."
            )
        rng = np.random.default_rng([config.data.split_seed, label])
        validation.append(rng.permutation(indices)[: min(max(count, 1), len(indices) - 1)])
    held_out = np.sort(np.concatenate(validation))
    return split.take(np.setdiff1d(np.arange(len(split)), held_out)), split.take(held_out)


def fold(
    split: Split, config: config_lib.Config, class_names: tuple[str, ...]
) -> tuple[Split, Split]:
    """The training and validation images of one fold of a stratified cross-validation.

    The images of each class are permuted, and go one by one to the parts in turn, class after
    class. So the parts differ by at most one image, in each class and in all: the images that are
    left over of small classes do not meet in the first parts.
    """
    part, parts = map(int, config.data.fold.split("/"))
    if parts > len(split):
        raise errors.UsageError(
            f"--fold={config.data.fold}: {len(split):,} training images cannot be divided into "
            f"{parts:,} parts."
        )
    permuted = []
    for label, indices in _indices_by_class(split):
        if len(indices) < 2:
            raise errors.UsageError(
                f"the class {class_names[label]!r} has one image: with --fold={config.data.fold}, "
                "the fold that validates on it cannot train it. Each class needs at least two."
            )
        permuted.append(np.random.default_rng([config.data.split_seed, label]).permutation(indices))
    held_out = np.sort(np.concatenate(permuted)[part - 1 :: parts])
    return split.take(np.setdiff1d(np.arange(len(split)), held_out)), split.take(held_out)


def choose_per_class(split: Split, per_class: int, seed: int) -> Split:
    """A seeded choice of `per_class` examples of each class; all of them if it is 0."""
    if per_class == 0:
        return split
    chosen = [
        np.random.default_rng([seed, label]).permutation(indices)[:per_class]
        for label, indices in _indices_by_class(split)
    ]
    return split.take(np.sort(np.concatenate(chosen)))


def _indices_by_class(split: Split) -> list[tuple[int, np.ndarray]]:
    return [
        (int(label), np.flatnonzero(split.labels == label)) for label in np.unique(split.labels)
    ]
