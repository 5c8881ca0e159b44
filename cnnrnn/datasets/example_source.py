"""Random access to encoded images by index, in image files or ArrayRecord files.

Random access makes the order of training a pure function: no shuffle buffer and no state.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import stat
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn import errors
from cnnrnn.datasets import image_folder
from cnnrnn.settings import paths as paths_lib
from cnnrnn.system import text as text_lib


class ExampleSource(Protocol):
    """The examples of one split of a builder, in canonical order."""

    def __len__(self) -> int:
        """The number of examples, N."""

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Reads an encoded image in a pipeline: () int64 -> () string."""

    def read(self, index: int) -> tuple[bytes, int]:
        """Reads an example eagerly: the encoded image and its label.

        Raises:
            OSError: its file cannot be read.
        """

    def describe(self, index: int) -> str:
        """An example's file or name and its class, for messages."""

    def path(self, index: int) -> str:
        """The file of an example, '' if it is not stored in a file of its own."""

    def labels(self) -> np.ndarray | None:
        """(N,) int64; None if a label is only known once its example is read."""

    def identities(self) -> list[tuple[bytes, str]]:
        """For each example a unique name, and a stamp that changes with its content.

        The stamp is '' if it is not known.
        """


class FileSource:
    """The image files that an `image_folder.FolderBuilder` lists."""

    def __init__(self, builder: image_folder.FolderBuilder, split: str):
        examples = builder.examples(split)
        self._paths = [path for path, _ in examples]
        self._labels = np.array([label for _, label in examples], np.int64)
        self._class_names = builder.info.features["label"].names

    def __len__(self) -> int:
        return len(self._paths)

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        with tf.init_scope():
            paths = tf.constant(absolute(self._paths))
        return tf.io.read_file(tf.gather(paths, index))

    def read(self, index: int) -> tuple[bytes, int]:
        return read_file(self._paths[index]), int(self._labels[index])

    def describe(self, index: int) -> str:
        path = text_lib.printable(self._paths[index])
        return f"{path} (class {self._class_names[self._labels[index]]!r})"

    def path(self, index: int) -> str:
        return self._paths[index]

    def labels(self) -> np.ndarray:
        return self._labels

    def identities(self) -> list[tuple[bytes, str]]:
        # Threads hide the latency of network file systems, where a stat can take a millisecond.
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            stamps = list(pool.map(_stamp, self._paths))
        return list(zip(absolute(self._paths), stamps, strict=True))


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

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        # Not stateful: deterministic op order would let only one of these calls run at a time.
        record = tf.numpy_function(
            lambda index: self._records[int(index)], [index], tf.string, stateful=False
        )
        return self._parse(tf.ensure_shape(record, ()))[self._image]

    def describe(self, index: int) -> str:
        example = self._parse(tf.constant(self._record(index)))
        label = self._features[self._label].int2str(int(example[self._label]))
        names = [
            value.numpy().decode(errors="replace")
            for key, value in example.items()
            if "name" in key and isinstance(self._features[key], tfds.features.Text)
        ]
        image = names[0] if names else f"example {index}"
        return f"{image} (class {label!r}, {self._name})"

    def read(self, index: int) -> tuple[bytes, int]:
        example = self._features.deserialize_example_np(
            self._record(index), decoders={self._image: tfds.decode.SkipDecoding()}
        )
        return bytes(example[self._image]), int(example[self._label])

    def path(self, index: int) -> str:
        return ""

    def labels(self) -> None:
        return None

    def identities(self) -> list[tuple[bytes, str]]:
        files = sorted(self._directory.iterdir())
        # A checksum, since each example has it: there may be thousands of files.
        stamp = hashlib.sha256(" ".join(_stamp(str(path)) for path in files).encode()).hexdigest()
        name = f"{self._directory}#{self._name}"
        return [(os.fsencode(f"{name}#{index}"), stamp) for index in range(len(self))]

    def _record(self, index: int) -> bytes:
        try:
            return self._records[index]
        except RuntimeError as error:
            raise damaged(self._directory, error) from error

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._features.deserialize_example(
            record, decoders={self._image: tfds.decode.SkipDecoding()}
        )


def damaged(folder: pathlib.Path, reason: object) -> errors.RunError:
    """The error of a prepared data set that cannot be read."""
    return errors.RunError(
        f"the prepared data set in {text_lib.printable(str(folder))} is damaged "
        f"({text_lib.one_line(reason)}): remove this folder, and the next start prepares it again."
    )


def absolute(paths: Sequence[str]) -> list[bytes]:
    """Absolute paths of files without `..`, as bytes: those that Python decoded by the locale."""
    return [os.fsencode(paths_lib.absolute(path)) for path in paths]


def read_file(path: str) -> bytes:
    """Reads the file of an image.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which could block forever.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("is not a regular file")
    with open(path, "rb") as file:
        return file.read()


def _stamp(path: str) -> str:
    """A file's size in bytes and times of change in ns; '' if it cannot be read."""
    try:
        info = os.stat(path)
    except OSError:
        return ""
    # The second time changes, too, if a program sets the first one to that of the copied file.
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"
