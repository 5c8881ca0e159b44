"""Random access to encoded images: by row number, from single files or from ArrayRecord.

Random access is what makes the order of training a pure function: no shuffle buffer, no state.
"""

import concurrent.futures
import os
import pathlib
import stat
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn.datasets import image_folder
from cnnrnn.system import text as text_lib


class ExampleSource(Protocol):
    """The examples of one split of a builder, in their canonical order."""

    def __len__(self) -> int: ...

    def fetch(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads a () int64 row, inside a pipeline: encoded () string, label () int64."""

    def read(self, row: int) -> tuple[bytes, int]:
        """Reads a row, outside of a pipeline: encoded, label.

        Raises:
            OSError: its file cannot be read.
        """

    def describe(self, row: int) -> str:
        """Where a row came from, for messages."""

    def path(self, row: int) -> str:
        """The file of a row, '' where rows are no files of their own."""

    def labels(self) -> np.ndarray | None:
        """(N,) int64, or None where a label is known only once its row is read."""

    def identities(self) -> list[tuple[bytes, str]]:
        """For each row a name, and what changes when its content does; '' if it is not known."""


class FileSource:
    """One image a file, as `folder_builder.FolderBuilder` lists them."""

    def __init__(self, builder: image_folder.FolderBuilder, split: str):
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

    def read(self, row: int) -> tuple[bytes, int]:
        return read_file(self._paths[row]), int(self._labels[row])

    def describe(self, row: int) -> str:
        path = text_lib.printable(self._paths[row])
        return f"{path} (class {self._class_names[self._labels[row]]!r})"

    def path(self, row: int) -> str:
        return self._paths[row]

    def labels(self) -> np.ndarray:
        return self._labels

    def identities(self) -> list[tuple[bytes, str]]:
        # Threads hide the latency of network file systems, where a stat can take a millisecond.
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            stamps = list(pool.map(_stamp, self._paths))
        names = [os.fsencode(os.path.abspath(path)) for path in self._paths]
        return list(zip(names, stamps, strict=True))


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
        image = names[0] if names else f"example {row}"
        return f"{image} (class {label!r}, {self._name})"

    def read(self, row: int) -> tuple[bytes, int]:
        example = self._features.deserialize_example_np(
            self._records[row], decoders={self._image: tfds.decode.SkipDecoding()}
        )
        return bytes(example[self._image]), int(example[self._label])

    def path(self, row: int) -> str:
        return ""

    def labels(self) -> None:
        return None

    def identities(self) -> list[tuple[bytes, str]]:
        stamp = " ".join(_stamp(str(path)) for path in sorted(self._directory.iterdir()))
        name = f"{self._directory}#{self._name}"
        return [(os.fsencode(f"{name}#{row}"), stamp) for row in range(len(self))]

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._features.deserialize_example(
            record, decoders={self._image: tfds.decode.SkipDecoding()}
        )


def read_file(path: str) -> bytes:
    """Reads an image's file.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which would be waited for without end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("is no regular file")
    with open(path, "rb") as file:
        return file.read()


def _stamp(path: str) -> str:
    try:
        info = os.stat(path)
    except OSError:
        return ""
    return f"{info.st_size} {info.st_mtime_ns}"
