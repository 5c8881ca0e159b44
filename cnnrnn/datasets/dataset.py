"""A name or a folder -> a TFDS builder -> a train and a validation split, with a fingerprint."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import example_source, image_folder, image_index, tfds_builders

_SHOWN = 5  # bad images in a message


@dataclasses.dataclass(frozen=True)
class Split:
    """Some rows of an example source, numbered 0 to N - 1."""

    source: example_source.ExampleSource
    indices: np.ndarray  # (N,) int64, into the source
    labels: np.ndarray  # (N,) int64
    infos: np.ndarray  # (N,) of image_check.ImageInfo

    def __len__(self) -> int:
        return len(self.indices)

    def fetch(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads a () int64 row, inside a pipeline: encoded () string, label () int64."""
        with tf.init_scope():
            table = tf.constant(self.indices)
        return self.source.fetch(tf.gather(table, row))

    def describe(self, row: int) -> str:
        return self.source.describe(int(self.indices[row]))

    def path(self, row: int) -> str:
        return self.source.path(int(self.indices[row]))

    def take(self, rows: np.ndarray) -> "Split":
        return Split(self.source, self.indices[rows], self.labels[rows], self.infos[rows])

    @property
    def digests(self) -> np.ndarray:
        """(N, 32) uint8: SHA-256 of each encoded image."""
        digests = bytes.fromhex("".join(info.sha256 for info in self.infos))
        return np.frombuffer(digests, np.uint8).reshape(-1, hashlib.sha256().digest_size)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run trains and validates on.

    `fingerprint` hashes, in order, the label and the content of every example of both splits: two
    layouts of the same images have the same fingerprint and give the same run. Class names do
    not enter it, since they are only shown.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    fingerprint: str
    split_here: bool  # the validation split was cut from train by --validation_fraction


@dataclasses.dataclass(frozen=True)
class Examined:
    """All images of a data set, bad ones too. `validation` is None where it has no such split."""

    class_names: tuple[str, ...]
    train: Split
    validation: Split | None


def examine(config: config_lib.Config, fault: Callable[[str], None] | None = None) -> Examined:
    """Finds, prepares (downloads) and looks at every image of the data set of a config.

    Args:
        config: names it.
        fault: takes what is wrong with a folder and could be passed over; None raises it.

    Raises:
        UsageError: there is no such data set, or it is none for a classifier.
        RunError: a download or a file failed.
    """
    builder = tfds_builders.build(config, fault)
    image, label = tfds_builders.image_and_label(builder, config.data.dataset)
    names = [
        name
        for name in ("train", tfds_builders.validation_name(builder, config.data.dataset))
        if name
    ]
    splits = []
    for name in names:
        if isinstance(builder, image_folder.FolderBuilder):
            source = example_source.FileSource(builder, name)
        else:
            source = example_source.RecordSource(builder, name, image, label)
        labels, infos = image_index.examine(
            source, f"{config.data.dataset} ({name})", config.data.max_pixels
        )
        split = Split(source, np.arange(len(source)), labels, np.array(infos, object))
        # TFDS marks examples without a label by -1; one that could not be read has none either.
        bad = np.array([bool(i.problem) for i in infos], bool)
        splits.append(split.take(np.flatnonzero((labels >= 0) | bad)))
    class_names = tuple(builder.info.features[label].names)
    return Examined(class_names, splits[0], splits[1] if len(splits) > 1 else None)


def load(config: config_lib.Config) -> Dataset:
    """Finds, prepares and checks the data set of a config, and makes its two splits.

    Raises:
        UsageError: the data set or folder cannot be trained on as it is.
        RunError: a download or a file failed.
    """
    examined = examine(config)
    class_names, train, validation = examined.class_names, examined.train, examined.validation
    train, validation = _without_bad(config, train, validation)
    split_here = not validation  # none, or one of which no example has a label
    if split_here:
        train, validation = _cut(train, config, class_names)
    train = _choose_per_class(train, config.data.train_per_class, config.data.split_seed)
    validation = _choose_per_class(
        validation, config.data.validation_per_class, config.data.split_seed
    )
    _check_classes(config, train, class_names)
    dataset = Dataset(
        name=config.data.dataset,
        class_names=class_names,
        train=train,
        validation=validation,
        fingerprint=_fingerprint(len(class_names), train, validation),
        split_here=split_here,
    )
    logging.info(
        f"data: {config.data.dataset}, {len(class_names)} classes, {len(train):,} training and "
        f"{len(validation):,} validation images, fingerprint {dataset.fingerprint[:12]}"
    )
    return dataset


def _without_bad(
    config: config_lib.Config, train: Split, validation: Split | None
) -> tuple[Split, Split | None]:
    """Leaves out the images that cannot be trained on, where --bad_images says so."""
    splits = [train] if validation is None else [train, validation]
    bad = [
        f"{split.describe(row)} {split.infos[row].problem}"
        for split in splits
        for row in range(len(split))
        if split.infos[row].problem
    ]
    if not bad:
        return train, validation
    shown = "; ".join(bad[:_SHOWN]) + (f"; and {len(bad) - _SHOWN} more" if bad[_SHOWN:] else "")
    told = f"{len(bad):,} of {sum(map(len, splits)):,} images cannot be trained on: {shown}"
    if config.data.bad_images == "stop":
        raise errors.UsageError(
            f"{told}. Mend them or take them out, or go on without them by --bad_images=skip. "
            "`./run.sh doctor` with the same flags lists them all."
        )
    logging.info(f"bad images: {told}. They are left out, as --bad_images says")
    kept = [
        split.take(np.array([row for row, f in enumerate(split.infos) if not f.problem], np.int64))
        for split in splits
    ]
    return kept[0], kept[1] if len(kept) > 1 else None


def _cut(
    split: Split, config: config_lib.Config, class_names: tuple[str, ...]
) -> tuple[Split, Split]:
    """Cuts a validation split out of a single one, class by class."""
    validation = []
    for label, rows in _indices_by_class(split):
        count = round(config.data.validation_fraction * len(rows))
        if len(rows) < 2:
            raise errors.UsageError(
                f"the class {class_names[label]!r} has one image: a split into training and "
                "validation needs at least two of each class."
            )
        rng = np.random.default_rng([config.data.split_seed, label])
        validation.append(rng.permutation(rows)[: min(max(count, 1), len(rows) - 1)])
    held_out = np.sort(np.concatenate(validation))
    return split.take(np.setdiff1d(np.arange(len(split)), held_out)), split.take(held_out)


def _choose_per_class(split: Split, per_class: int, seed: int) -> Split:
    if per_class == 0:
        return split
    chosen = [
        np.random.default_rng([seed, label]).permutation(rows)[:per_class]
        for label, rows in _indices_by_class(split)
    ]
    return split.take(np.sort(np.concatenate(chosen)))


def _indices_by_class(split: Split) -> list[tuple[int, np.ndarray]]:
    return [
        (int(label), np.flatnonzero(split.labels == label)) for label in np.unique(split.labels)
    ]


def _check_classes(config: config_lib.Config, train: Split, class_names: tuple[str, ...]) -> None:
    """Raises UsageError if fewer than two classes have training images; notes any that has none.

    Some TFDS sets declare labels that none of their examples has.
    """
    present = np.unique(train.labels)
    if len(present) < 2:
        raise errors.UsageError(
            f"--dataset={config.data.dataset} has training images of {len(present)} class(es): a "
            "classifier needs at least two."
        )
    if len(present) < len(class_names):
        missing = np.setdiff1d(np.arange(len(class_names)), present)
        logging.info(
            f"note: {len(missing)} class(es) have no training images, e.g. "
            f"{class_names[missing[0]]!r}"
        )


def _fingerprint(classes: int, *splits: Split) -> str:
    digest = hashlib.sha256(f"{classes} classes".encode())
    for split in splits:
        digest.update(f"{len(split)} examples".encode())
        digest.update(np.ascontiguousarray(split.labels, "<i8").tobytes())
        digest.update(np.ascontiguousarray(split.digests).tobytes())
    return digest.hexdigest()
