"""A name or a folder -> a TFDS builder -> a train and a validation split, with a fingerprint."""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn import config as config_lib
from cnnrnn import errors, example_source, folder_builder
from data.digits import digits_dataset_builder
from data.tiny_imagenet_100 import tiny_imagenet_100_dataset_builder

Log = Callable[[str], None]
_VALIDATION_SPLITS = ("validation", "val", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """Some rows of an example source, numbered 0 to N - 1."""

    source: example_source.ExampleSource
    rows: np.ndarray  # (N,) int64: row in the source
    labels: np.ndarray  # (N,) int64
    digests: np.ndarray  # (N, 32) uint8: SHA-256 of the encoded picture

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads a () int64 row, inside a pipeline: encoded () string, label () int64."""
        with tf.init_scope():
            table = tf.constant(self.rows)
        return self.source.fetch(tf.gather(table, row))

    def describe(self, row: int) -> str:
        return self.source.describe(int(self.rows[row]))

    def take(self, rows: np.ndarray) -> "Split":
        return Split(self.source, self.rows[rows], self.labels[rows], self.digests[rows])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run trains and validates on.

    `fingerprint` hashes, in order, the label and the content of every example of both splits: two
    layouts of the same pictures have the same fingerprint and give the same run. Class names do
    not enter it, since they are only shown.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    fingerprint: str
    split_here: bool  # the validation split was cut from train by --validation_fraction


def load(config: config_lib.Config, log: Log = print) -> Dataset:
    """Finds, prepares (downloads) and indexes the data set of a config.

    Raises:
        UsageError: the data set or folder cannot be trained on as it is.
        RunError: a download or a file failed.
    """
    builder = _builder(config, log)
    image, label = _image_and_label(builder, config.dataset)
    class_names = tuple(builder.info.features[label].names)
    validation_name = _validation_name(builder, config.dataset)
    train = _whole_split(builder, "train", image, label, config.dataset)
    validation = None
    if validation_name is not None:
        validation = _whole_split(builder, validation_name, image, label, config.dataset)
    split_here = not validation  # none, or one of which no example has a label
    if split_here:
        train, validation = _cut(train, config, class_names)
    train = _choose_per_class(train, config.train_per_class, config.split_seed)
    validation = _choose_per_class(validation, config.validation_per_class, config.split_seed)
    _check_classes(config, train, class_names, log)
    dataset = Dataset(
        name=config.dataset,
        class_names=class_names,
        train=train,
        validation=validation,
        fingerprint=_fingerprint(len(class_names), train, validation),
        split_here=split_here,
    )
    log(
        f"data: {config.dataset}, {len(class_names)} classes, {len(train):,} training and "
        f"{len(validation):,} validation pictures, fingerprint {dataset.fingerprint[:12]}"
    )
    return dataset


def _builder(config: config_lib.Config, log: Log) -> tfds.core.DatasetBuilder:
    """The prepared builder of a data set's name or folder."""
    name, data_dir = config.dataset, config.prepared_data_dir
    if name not in ("digits", "tiny_imagenet_100") and not name.startswith("tfds:"):
        return folder_builder.build(pathlib.Path(name).expanduser(), log)
    archive = pathlib.Path(config.archive).expanduser() if config.archive else None
    if archive is not None and not archive.is_file():
        raise errors.UsageError(f"--archive={archive} is not a file.")
    storage = {"data_dir": data_dir, "file_format": "array_record"}
    try:
        if name == "digits":
            builder = digits_dataset_builder.Builder(**storage)
        elif name == "tiny_imagenet_100":
            builder = tiny_imagenet_100_dataset_builder.Builder(archive=archive, **storage)
        else:
            builder = tfds.builder(name.removeprefix("tfds:"), **storage)
    except (tfds.core.DatasetNotFoundError, ImportError, ValueError) as error:
        if "File format is already set" in str(error):
            raise errors.UsageError(
                f"{data_dir} holds {name} in a format that cannot be read by row: give another "
                "--data_dir, where it is prepared anew."
            ) from error
        raise errors.UsageError(f"--dataset={name}: {str(error).splitlines()[0]}") from error
    if archive is not None and builder.data_path.exists():
        log(f"note: --archive is not read: {name} was prepared before in {builder.data_path}")
    return _prepared(builder, name, data_dir, log)


def _prepared(
    builder: tfds.core.DatasetBuilder, name: str, data_dir: pathlib.Path, log: Log
) -> tfds.core.DatasetBuilder:
    """Downloads and prepares a builder unless it is; ends within seconds when offline."""
    if not builder.data_path.exists():
        log(f"preparing {name} in {builder.data_path} (once)")
        if not sys.stdout.isatty():
            tfds.disable_progress_bar()  # its bars overwrite themselves, which a log cannot
        manual = data_dir / "downloads" / "manual"
        check_reachable(builder, name, manual)
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual)
            )
        except (errors.UsageError, errors.RunError, OSError):
            raise
        except Exception as error:  # builders of other people raise anything at all
            raise errors.RunError(
                f"the data set {name} could not be prepared: {type(error).__name__}: {error}"
            ) from error
    return builder


def check_reachable(builder: tfds.core.DatasetBuilder, name: str, manual: pathlib.Path) -> None:
    """Raises at once what TFDS would find out after some 200 seconds of retries.

    Args:
        builder: its registered URLs are what is looked at; one per host is tried.
        name: the data set, for the message.
        manual: TFDS takes a download from here if a file of the right name and checksum is there.

    Raises:
        RunError: a host does not answer; says what to fetch and where to put it.
    """
    missing = {
        url: info.filename
        for url, info in (builder.url_infos or {}).items()
        if url.startswith("http") and not (info.filename and (manual / info.filename).exists())
    }
    one_per_host = {url.split("/")[2]: url for url in sorted(missing, reverse=True)}
    for url in one_per_host.values():
        try:
            requests.head(url, timeout=5, allow_redirects=False)
        except requests.RequestException as error:
            wanted = "\n".join(
                f"  {url}" + (f"  as {file}" if file and not url.endswith(file) else "")
                for url, file in sorted(missing.items())[:10]
            )
            raise errors.RunError(
                f"the data set {name} has to be downloaded, and {url.split('/')[2]} cannot be "
                f"reached ({type(error).__name__}). Fetch these files elsewhere and put them into "
                f"{manual}, then give the same command again:\n{wanted}"
            ) from error


def _image_and_label(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, str]:
    """The names of the image and the label feature."""
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    usable = (
        all(isinstance(key, str) and key in features for key in keys)
        and isinstance(features[keys[0]], tfds.features.Image)
        and isinstance(features[keys[1]], tfds.features.ClassLabel)
    )
    if not usable:
        raise errors.UsageError(
            f"--dataset={name} is no image classification set: expected one picture and one class "
            f"label per example. Its features are {', '.join(features)}."
        )
    return keys[0], keys[1]


def _validation_name(builder: tfds.core.DatasetBuilder, name: str) -> str | None:
    splits = list(builder.info.splits)
    if "train" not in splits:
        raise errors.UsageError(
            f"--dataset={name} has no split 'train'. Its splits are {', '.join(splits)}."
        )
    return next((split for split in _VALIDATION_SPLITS if split in splits), None)


def _whole_split(builder, split: str, image: str, label: str, name: str) -> Split:
    if isinstance(builder, folder_builder.FolderBuilder):
        source = example_source.FileSource(builder, split)
    else:
        source = example_source.RecordSource(builder, split, image, label)
    labels, digests = example_source.labels_and_digests(source, f"{name} ({split})")
    labelled = np.flatnonzero(labels >= 0)  # TFDS marks examples without a label by -1
    return Split(source, np.arange(len(source)), labels, digests).take(labelled)


def _cut(
    split: Split, config: config_lib.Config, class_names: tuple[str, ...]
) -> tuple[Split, Split]:
    """Cuts a validation split out of a single one, class by class."""
    validation = []
    for label, rows in _rows_by_class(split):
        count = round(config.validation_fraction * len(rows))
        if len(rows) < 2:
            raise errors.UsageError(
                f"the class {class_names[label]!r} has one picture: a split into training and "
                "validation needs at least two of each class."
            )
        rng = np.random.default_rng([config.split_seed, label])
        validation.append(rng.permutation(rows)[: min(max(count, 1), len(rows) - 1)])
    held_out = np.sort(np.concatenate(validation))
    return split.take(np.setdiff1d(np.arange(len(split)), held_out)), split.take(held_out)


def _choose_per_class(split: Split, per_class: int, seed: int) -> Split:
    if per_class == 0:
        return split
    chosen = [
        np.random.default_rng([seed, label]).permutation(rows)[:per_class]
        for label, rows in _rows_by_class(split)
    ]
    return split.take(np.sort(np.concatenate(chosen)))


def _rows_by_class(split: Split) -> list[tuple[int, np.ndarray]]:
    return [
        (int(label), np.flatnonzero(split.labels == label)) for label in np.unique(split.labels)
    ]


def _check_classes(
    config: config_lib.Config, train: Split, class_names: tuple[str, ...], log: Log
) -> None:
    """Raises UsageError if fewer than two classes have training pictures; notes any that has none.

    Some TFDS sets declare labels that none of their examples has.
    """
    present = np.unique(train.labels)
    if len(present) < 2:
        raise errors.UsageError(
            f"--dataset={config.dataset} has training pictures of {len(present)} class(es): a "
            "classifier needs at least two."
        )
    if len(present) < len(class_names):
        missing = np.setdiff1d(np.arange(len(class_names)), present)
        log(
            f"note: {len(missing)} class(es) have no training pictures, e.g. "
            f"{class_names[missing[0]]!r}"
        )


def _fingerprint(classes: int, *splits: Split) -> str:
    digest = hashlib.sha256(f"{classes} classes".encode())
    for split in splits:
        digest.update(f"{len(split)} examples".encode())
        digest.update(np.ascontiguousarray(split.labels, "<i8").tobytes())
        digest.update(np.ascontiguousarray(split.digests).tobytes())
    return digest.hexdigest()
