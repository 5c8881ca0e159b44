"""The frozen CNN's features on disk: computed once, used by every later epoch of phase 1.

In phase 1 the CNN never changes, so the 2048 features of an image are the same in each epoch.
They lie in chunks of rows of a split,

  DIR/KEY/key.json        what KEY is the hash of
  DIR/KEY/00000.npy       (512, 2048) float32, rows 0 to 511; the last chunk is shorter
  DIR/KEY/00000.sha256    of that file; a chunk without it is not there yet

and KEY stands for all that decides the values: the CNN's weights, the images, how they are
prepared, the precision. So runs share them, and a cache can never be stale without being another
one. A view drawn at random would have no fixed features; there is none in this program.

The order of training is a function of the position (see `input_pipeline`), so rows are looked up
at random, through memory maps: resident memory does not grow with the number of images.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import errors, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.models import network as network_lib
from cnnrnn.models import xception_weights
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import atomic_files, checksummed, progress
from cnnrnn.training import steps

CHUNK_ROWS = 512
_FORMAT = 1
_BATCH_PER_REPLICA = 32


def pays(passes: float) -> bool:
    """Whether to compute the features of a split that is still gone through so often.

    Computing them is one pass itself.
    """
    return passes > 1


def batch_size(strategy: tf.distribute.Strategy) -> int:
    """How many images the CNN is given at a time."""
    return _BATCH_PER_REPLICA * strategy.num_replicas_in_sync


class Features:
    """The features of a whole split; see `input_pipeline.Features`."""

    def __init__(self, chunks: list[pathlib.Path], width: int):
        self._chunks = [np.load(path, mmap_mode="r") for path in chunks]
        self._width = width

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        features = tf.numpy_function(self._gather, [rows], tf.float32)
        return tf.ensure_shape(features, (rows.shape[0], self._width))

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._chunks[row // CHUNK_ROWS][row % CHUNK_ROWS] for row in rows])


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """Where features are kept, and all that decides them but the images.

    Attributes:
        directory: holds the caches of all runs.
        network: its CNN computes the features; its weights must be those to use.
        strategy: what to compute them on.
        preprocessing: as in training.
    """

    directory: pathlib.Path
    network: network_lib.Network
    strategy: tf.distribute.Strategy
    preprocessing: views_lib.Preprocessing

    def features(self, split: dataset_lib.Split, name: str, passes: float) -> Features | None:
        """The features of a split, computed as far as they are missing.

        Args:
            split: whose features.
            name: what to call the split.
            passes: how often the split is still to be gone through. Where computing its features
                does not pay, only a cache that is complete is used.

        Raises:
            RunError: the disk has no room or cannot be written, or an image cannot be decoded.
        """
        folder, missing = self._look(split, name)
        if missing and not pays(passes):
            logging.info(
                f"feature cache: not written for {name}: its images are gone through "
                f"{passes:.2g} times, and computing the features takes one pass itself"
            )
            return None
        if missing:
            self._make_room(folder, name, len(split), missing)
            self._compute(folder, split, name, missing)
        chunks = [_chunk(folder, index) for index in range(_chunk_count(split))]
        logging.info(f"feature cache: {len(split):,} images of {name} from {folder}")
        return Features(chunks, self._width)

    @property
    def _width(self) -> int:
        return self.network.cnn.output.shape[-1]

    def _look(self, split: dataset_lib.Split, name: str) -> tuple[pathlib.Path, list[int]]:
        """The folder of a split, and which of its chunks are not there, or not as written."""
        key = {
            "format": _FORMAT,
            "weights": xception_weights.tensors_sha256(self.network.cnn.get_weights()),
            "pictures": hashlib.sha256(np.ascontiguousarray(split.digests).tobytes()).hexdigest(),
            "rgb_view": views_lib.RGB_VERSION,
            "resize_method": self.preprocessing.resize_method,
            "image_size": shapes.IMAGE_SIZE,
            "precision": self.network.precision,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        folder = self.directory / digest[:32]
        missing = []
        for index in range(_chunk_count(split)):
            fault = _fault(_chunk(folder, index), (_rows_in(index, split), self._width))
            if fault is not None:
                missing.append(index)
            if fault:
                logging.info(f"feature cache: {_chunk(folder, index)} {fault}: computing it anew")
        try:
            if missing and not (folder / "key.json").exists():
                atomic_files.write_json(folder / "key.json", {**key, "split": name})
        except OSError as error:
            raise _cannot_write(folder, error) from error
        return folder, missing

    def _make_room(self, folder: pathlib.Path, name: str, rows: int, missing: list[int]) -> None:
        row_bytes = 4 * self._width
        need = len(missing) * CHUNK_ROWS * row_bytes
        free = shutil.disk_usage(folder).free
        logging.info(
            f"feature cache: {rows:,} images of {name} x {row_bytes / 1024:.0f} KB = "
            f"{rows * row_bytes / 1e6:,.0f} MB in {folder}, of which "
            f"{min(need, rows * row_bytes) / 1e6:,.0f} MB are to be written; "
            f"{free / 1e9:,.1f} GB are free"
        )
        if need > free:
            raise errors.RunError(
                f"the feature cache needs {need / 1e6:,.0f} MB in {folder}, where "
                f"{free / 1e6:,.0f} MB are free: make room, give another place by "
                "--feature_cache=DIR, or do without by --feature_cache=off."
            )

    def _compute(
        self, folder: pathlib.Path, split: dataset_lib.Split, name: str, missing: list[int]
    ) -> None:
        rows = np.concatenate(
            [np.arange(_rows_in(index, split)) + index * CHUNK_ROWS for index in missing]
        )
        images = batch_size(self.strategy)
        step = steps.make_feature_step(self.network, self.strategy)
        batches = input_pipeline.evaluation(
            split.take(rows), batch_size=images, preprocessing=self.preprocessing
        )
        iterator = input_pipeline.distribute(batches, self.strategy)
        pending = np.empty((0, self._width), np.float32)
        waiting = list(missing)
        with progress.Progress(
            f"features of {name}", len(split), "images", initial=len(split) - len(rows)
        ) as bar:
            for start in range(0, len(rows), images):
                in_batch = rows[start : start + images]
                try:
                    batch = next(iterator)
                except tf.errors.OpError as error:
                    raise input_pipeline.decoding_error(split, in_batch, error) from error
                pending = np.concatenate([pending, step(batch).numpy()[: len(in_batch)]])
                while waiting and len(pending) >= (count := _rows_in(waiting[0], split)):
                    _write(_chunk(folder, waiting.pop(0)), pending[:count])
                    pending = pending[count:]
                bar.update(len(split) - len(rows) + start + len(in_batch))


def _chunk_count(split: dataset_lib.Split) -> int:
    return -(-len(split) // CHUNK_ROWS)


def _rows_in(index: int, split: dataset_lib.Split) -> int:
    return min(CHUNK_ROWS, len(split) - index * CHUNK_ROWS)


def _chunk(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"{index:05d}.npy"


def _fault(path: pathlib.Path, shape: tuple[int, int]) -> str | None:
    """What is wrong with a chunk: None if it is whole, '' if it was never finished."""
    checksum = path.with_suffix(".sha256")
    if not checksum.exists():
        return ""
    try:
        if checksummed.file_digest(path) != checksum.read_text().strip():
            return "is damaged"
        written = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    if written.shape != shape or written.dtype != np.float32:
        return f"holds {written.dtype} {written.shape} and not float32 {shape}"
    return None


def _write(path: pathlib.Path, features: np.ndarray) -> None:
    """Writes a chunk, then its checksum: whoever is killed in between leaves no chunk."""
    try:
        with atomic_files.replacing(path) as temporary:
            np.save(temporary, features)
            digest = checksummed.file_digest(temporary)
        atomic_files.write_text(path.with_suffix(".sha256"), digest + "\n")
    except OSError as error:
        raise _cannot_write(path.parent, error) from error


def _cannot_write(folder: pathlib.Path, error: OSError) -> errors.RunError:
    return errors.RunError(
        f"cannot write the feature cache in {folder} ({error.strerror}): give another place by "
        "--feature_cache=DIR, or do without by --feature_cache=off."
    )
