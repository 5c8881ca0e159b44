"""Data sets: `--dataset` in, a training and a validation split out, with a fingerprint."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import example_source, image_folder, image_index, tfds_builders
from cnnrnn.system import text as text_lib

_SHOWN = 5  # bad images in a message


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
            indices = tf.constant(self.indices)
        return self.source.fetch(tf.gather(indices, index))

    def describe(self, index: int) -> str:
        """An example's file or name and its class, for messages."""
        return self.source.describe(int(self.indices[index]))

    def path(self, index: int) -> str:
        """The file of an example, '' if it is not stored in a file of its own."""
        return self.source.path(int(self.indices[index]))

    def take(self, indices: np.ndarray) -> "Split":
        """The split of the examples at `indices`."""
        return Split(self.source, self.indices[indices], self.labels[indices], self.infos[indices])

    @property
    def problems(self) -> np.ndarray:
        """(N,) bool: which examples cannot be trained on."""
        return np.array([bool(info.problem) for info in self.infos], bool)

    @property
    def digests(self) -> np.ndarray:
        """(N, 32) uint8: SHA-256 of each encoded image."""
        digests = bytes.fromhex("".join(info.sha256 for info in self.infos))
        return np.frombuffer(digests, np.uint8).reshape(-1, hashlib.sha256().digest_size)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The two splits of a run.

    Attributes:
        name: --dataset, for messages and records.
        class_names: by label.
        train: the training split.
        validation: the validation split.
        fingerprint: SHA-256 over the labels and contents of both splits, in order. Two layouts of
            the same images have the same fingerprint and give the same run. Class names are not
            part of it, since they are only shown.
        split_here: whether `validation` was taken from the training images, by --fold or
            --validation_fraction.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    fingerprint: str
    split_here: bool


@dataclasses.dataclass(frozen=True)
class Examined:
    """All labelled images of a data set, including those that cannot be trained on.

    Attributes:
        class_names: by label.
        train: the training images.
        validation: the validation images; None if the data set has none with labels.
    """

    class_names: tuple[str, ...]
    train: Split
    validation: Split | None


def examine(config: config_lib.Config, on_problem: Callable[[str], None] | None = None) -> Examined:
    """Prepares (downloads) a data set and checks every image.

    Args:
        config: its `data` settings.
        on_problem: called with each problem of one class or one folder, which is then skipped. By
            default the first is raised.

    Raises:
        UsageError: the data set does not exist, or is not one of labelled images.
        RunError: downloading or reading failed.
    """
    name = config.data.dataset
    builder = tfds_builders.build(config, on_problem)
    image, label = tfds_builders.image_and_label(builder, name)
    train = _examine_split(config, builder, "train", image, label)
    validation_name = tfds_builders.validation_name(builder, name)
    validation = None
    if validation_name is not None:
        validation = _examine_split(config, builder, validation_name, image, label)
    class_names = tuple(builder.info.features[label].names)
    # The test split of many TFDS data sets has no labels.
    return Examined(class_names, train, validation or None)


def _examine_split(
    config: config_lib.Config,
    builder: tfds_builders.Builder,
    name: str,
    image: str,
    label: str,
) -> Split:
    """One split of a builder, without the examples that have no label."""
    if isinstance(builder, image_folder.FolderBuilder):
        source = example_source.FileSource(builder, name)
    else:
        source = example_source.RecordSource(builder, name, image, label)
    shown = f"{text_lib.printable(config.data.dataset)} ({name})"
    labels, infos = image_index.examine(source, shown, config.data.max_pixels)
    split = Split(source, np.arange(len(source)), labels, np.array(infos, object))
    # TFDS's label of examples without one is -1. Those that cannot be read are kept: they may have
    # one, and are reported.
    unread = np.array([not info.sha256 for info in infos], bool)
    return split.take(np.flatnonzero((labels >= 0) | unread))


def load(config: config_lib.Config) -> Dataset:
    """Prepares and checks a data set and makes its two splits.

    Raises:
        UsageError: the data set cannot be trained on as it is.
        RunError: downloading or reading failed.
    """
    examined = examine(config)
    if config.data.fold and examined.validation is not None:
        logging.info("note: --fold is given, so the validation split of the data set is not used")
        examined = dataclasses.replace(examined, validation=None)
    class_names = examined.class_names
    if not examined.train:
        raise errors.UsageError(
            f"{_shown(config)} has no labelled training images: expected at least two classes "
            "of images."
        )
    _report_bad_images(config, examined)
    train = _without_bad_images(config, examined.train, "training")
    split_here = examined.validation is None
    if config.data.fold:
        train, validation = _fold(train, config, class_names)
    elif split_here:
        train, validation = _cut(train, config, class_names)
    else:
        validation = _without_bad_images(config, examined.validation, "validation")
    train = _choose_per_class(train, config.data.train_per_class, config.data.split_seed)
    validation = _choose_per_class(
        validation, config.data.validation_per_class, config.data.split_seed
    )
    _check_classes(config, train, class_names)
    dataset = Dataset(
        name=text_lib.printable(config.data.dataset),
        class_names=class_names,
        train=train,
        validation=validation,
        fingerprint=_fingerprint(len(class_names), train, validation),
        split_here=split_here,
    )
    fold = f", fold {config.data.fold}" if config.data.fold else ""
    logging.info(
        f"data: {dataset.name}{fold}, {len(class_names)} classes, {len(train):,} training and "
        f"{len(validation):,} validation images, fingerprint {dataset.fingerprint[:12]}"
    )
    return dataset


def _report_bad_images(config: config_lib.Config, examined: Examined) -> None:
    """Lists the images that cannot be trained on: as an error, or as a warning if skipped."""
    splits = [split for split in (examined.train, examined.validation) if split is not None]
    bad = [
        f"{split.describe(index)} {split.infos[index].problem}"
        for split in splits
        for index in np.flatnonzero(split.problems)
    ]
    if not bad:
        return
    shown = "; ".join(bad[:_SHOWN]) + (f"; and {len(bad) - _SHOWN} more" if bad[_SHOWN:] else "")
    message = f"{len(bad):,} of {sum(map(len, splits)):,} images cannot be trained on: {shown}"
    if config.data.bad_images == "stop":
        raise errors.UsageError(
            f"{message}. Fix or remove them, or leave them out with --bad_images=skip. "
            f"`{text_lib.program()} doctor` with the same flags lists them all."
        )
    logging.warning(f"{message}. They are left out (--bad_images=skip)")


def _without_bad_images(config: config_lib.Config, split: Split, name: str) -> Split:
    """The images of a split that can be trained on.

    Raises:
        UsageError: there are none. A validation split of bad images is not replaced by one cut
            from the training images, which would give another run than the one asked for.
    """
    good = np.flatnonzero(~split.problems)
    if not len(good):
        raise errors.UsageError(
            f"none of the {len(split):,} {name} images of {_shown(config)} can be read, so "
            f"--bad_images=skip leaves no {name} split: fix the images. "
            f"`{text_lib.program()} doctor` with the same flags lists them all."
        )
    return split.take(good)


def _cut(
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


def _fold(
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


def _choose_per_class(split: Split, per_class: int, seed: int) -> Split:
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


def _check_classes(config: config_lib.Config, train: Split, class_names: tuple[str, ...]) -> None:
    """Raises UsageError if fewer than two classes have training images; reports classes without.

    Some TFDS data sets declare labels that none of their examples has.
    """
    present = np.unique(train.labels)
    if len(present) < 2:
        raise errors.UsageError(
            f"{_shown(config)} has training images of {len(present)} class(es): a classifier needs "
            "at least two."
        )
    if len(present) < len(class_names):
        missing = np.setdiff1d(np.arange(len(class_names)), present)
        logging.info(
            f"note: {len(missing)} class(es) have no training images, e.g. "
            f"{class_names[missing[0]]!r}"
        )


def _shown(config: config_lib.Config) -> str:
    return f"--dataset={text_lib.printable(config.data.dataset)}"


def _fingerprint(classes: int, *splits: Split) -> str:
    digest = hashlib.sha256(f"{classes} classes".encode())
    for split in splits:
        digest.update(f"{len(split)} examples".encode())
        digest.update(np.ascontiguousarray(split.labels, "<i8").tobytes())
        digest.update(np.ascontiguousarray(split.digests).tobytes())
    return digest.hexdigest()
