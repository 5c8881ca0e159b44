"""Random access to encoded pictures: by row number, from single files or from ArrayRecord.

Random access is what makes the order of training a pure function: no shuffle buffer, no state.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn import atomic_file, config, errors, folder_builder, progress


class ExampleSource(Protocol):
    """The examples of one split of a builder, in their canonical order."""

    def __len__(self) -> int: ...

    def fetch(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads a () int64 row, inside a pipeline: encoded () string, label () int64."""

    def describe(self, row: int) -> str:
        """Where a row came from, for messages."""

    def state(self) -> str:
        """A hash of the files' names, sizes and times: changes when a file does."""


class FileSource:
    """One picture a file, as `folder_builder.FolderBuilder` lists them."""

    def __init__(self, builder: folder_builder.FolderBuilder, split: str):
        examples = builder.examples(split)
        self._paths = [path for path, _ in examples]
        self._labels = np.array([label for _, label in examples], np.int64)
        self._class_names = builder.info.features["label"].names

    def __len__(self) -> int:
        return len(self._paths)

    def fetch(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Paths are bytes to TensorFlow; surrogateescape brings back names that are not UTF-8.
        with tf.init_scope():
            paths = tf.constant([path.encode("utf-8", "surrogateescape") for path in self._paths])
            labels = tf.constant(self._labels)
        return tf.io.read_file(tf.gather(paths, row)), tf.gather(labels, row)

    def describe(self, row: int) -> str:
        return f"{self._paths[row]} (class {self._class_names[self._labels[row]]!r})"

    def state(self) -> str:
        # The labels belong to it: a class added in another split renumbers those of this one.
        return _hash_of_stats([pathlib.Path(path) for path in self._paths], self._labels.tolist())


class RecordSource:
    """A split of a prepared TFDS builder, stored as ArrayRecord."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, image: str, label: str):
        self._name = f"split {split!r} of {builder.info.full_name}"
        self._directory = pathlib.Path(builder.data_dir)
        self._features = builder.info.features
        self._image, self._label = image, label
        self._records = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    def __len__(self) -> int:
        return len(self._records)

    def fetch(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record = tf.numpy_function(lambda row: self._records[int(row)], [row], tf.string)
        example = self._parse(tf.ensure_shape(record, ()))
        return example[self._image], tf.cast(example[self._label], tf.int64)

    def describe(self, row: int) -> str:
        example = self._parse(tf.constant(self._records[row]))
        label = self._features[self._label].int2str(int(example[self._label]))
        names = [
            value.numpy().decode(errors="replace")
            for key, value in example.items()
            if "name" in key and isinstance(self._features[key], tfds.features.Text)
        ]
        picture = names[0] if names else f"example {row}"
        return f"{picture} (class {label!r}, {self._name})"

    def state(self) -> str:
        return _hash_of_stats(sorted(self._directory.iterdir()), [self._name])

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._features.deserialize_example(
            record, decoders={self._image: tfds.decode.SkipDecoding()}
        )


def labels_and_digests(source: ExampleSource, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads every example once for its label and the SHA-256 of its bytes.

    The answer is kept in the cache folder and taken from there as long as no file changes its
    name, size or time.

    Args:
        source: what to read.
        name: what to call it in the progress line.

    Returns:
        labels (N,) int64, digests (N, 32) uint8.

    Raises:
        UsageError: a picture has no bytes at all.
        RunError: a file cannot be read.
    """
    kept = config.cache_dir() / "digests" / f"{source.state()}.npz"
    if kept.exists():
        try:
            with open(kept, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                labels, digests = arrays["labels"], arrays["digests"]
                if len(labels) == len(digests) == len(source):
                    return labels, digests
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            pass  # damaged: read the examples again and write it anew
    labels = np.empty(len(source), np.int64)
    digests = np.empty((len(source), 32), np.uint8)
    with progress.Progress(f"reading {name}", len(source), "pictures") as bar:
        for row, (encoded, label) in enumerate(_numpy_examples(source)):
            if not encoded:
                raise errors.UsageError(
                    f"{source.describe(row)} is empty: mend it or take it out of the data set."
                )
            labels[row] = label
            digests[row] = np.frombuffer(hashlib.sha256(encoded).digest(), np.uint8)
            bar.update(row + 1)
    try:
        with atomic_file.replacing(kept) as temporary:
            np.savez(temporary, labels=labels, digests=digests)
    except OSError as error:
        print(f"note: could not keep the digests in {kept.parent}: {error}")
    return labels, digests


def _numpy_examples(source: ExampleSource) -> Iterator[tuple[bytes, int]]:
    rows = tf.data.Dataset.range(len(source))
    try:
        examples = rows.map(source.fetch, num_parallel_calls=os.cpu_count())
        yield from examples.prefetch(64).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise errors.RunError(f"cannot read the data set: {error.message}") from error


def _hash_of_stats(paths: list[pathlib.Path], also: list) -> str:
    def stat(path: pathlib.Path):
        try:
            info = path.stat()
        except OSError as error:
            raise errors.UsageError(
                f"{path} cannot be read ({error.strerror}): mend it or take it out of the data set."
            ) from error
        return [str(path.absolute()), info.st_size, info.st_mtime_ns]

    # Threads hide the latency of network file systems, where a stat can take a millisecond.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        stats = list(pool.map(stat, paths))
    return hashlib.sha256(json.dumps([stats, also]).encode()).hexdigest()
