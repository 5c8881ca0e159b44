"""Disk cache of the frozen CNN's features: computed once, used by every later epoch of phase 1.

In phase 1 the CNN never changes, so an image's 2048 features are the same in each epoch. The
features of a split are stored in chunks of 512 images:

  DIR/KEY/key.json        the values that KEY is the hash of
  DIR/KEY/00000.npy       (512, 2048) float32, images 0 to 511; the last chunk is shorter
  DIR/KEY/00000.sha256    checksum of that file; a chunk without it is incomplete

KEY is derived from all that determines the features: the CNN's weights, the images, their
preprocessing, the precision, and on GPUs how they round. So runs share features, and a cache never
becomes stale: other inputs have another key. A randomly augmented image has no fixed features and
could not be cached.

Training reads images in shuffled order (see `input_pipeline`), so features are looked up by index
through memory maps: resident memory does not grow with the number of images.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import errors, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.models import network as network_lib
from cnnrnn.models import xception_weights
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import atomic_files, checksummed, pipelined, progress
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import steps

CHUNK_SIZE = 512  # images
_FORMAT = 1
_BATCH_PER_REPLICA = 32
_ALTERNATIVES = "give another folder by --feature_cache=DIR, or disable it by --feature_cache=off."


def pays(passes: float) -> bool:
    """Whether caching a split is worth it for this many more passes; caching costs one."""
    return passes > 1


def batch_size(strategy: tf.distribute.Strategy) -> int:
    """Images per step of the CNN, summed over all replicas."""
    return _BATCH_PER_REPLICA * strategy.num_replicas_in_sync


class Features:
    """The cached features of a split; implements `input_pipeline.Features`."""

    def __init__(self, chunks: list[pathlib.Path], width: int):
        self._chunks = [np.load(path, mmap_mode="r") for path in chunks]
        self._width = width

    def of(self, indices: tf.Tensor) -> tf.Tensor:
        # Not stateful: deterministic op order would let only one of these calls run at a time.
        features = tf.numpy_function(self._gather, [indices], tf.float32, stateful=False)
        return tf.ensure_shape(features, (indices.shape[0], self._width))

    def _gather(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self._chunks[i // CHUNK_SIZE][i % CHUNK_SIZE] for i in indices])


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """The cache folder, and all that determines features except the images.

    Attributes:
        directory: holds the features of all runs.
        network: its CNN computes the features, with the weights that it has now.
        strategy: what to compute them on.
        preprocessing: as in training.
    """

    directory: pathlib.Path
    network: network_lib.Network
    strategy: tf.distribute.Strategy
    preprocessing: views_lib.Preprocessing

    def features(self, split: dataset_lib.Split, name: str, passes: float) -> Features | None:
        """The features of a split; missing ones are computed if that pays off.

        Args:
            split: training or validation images.
            name: of the split, for messages.
            passes: how many more passes over the split there will be.

        Returns:
            None if features are missing and computing them does not pay off.

        Raises:
            RunError: the disk is full or cannot be written, or an image cannot be decoded.
        """
        folder, missing = self._find(split, name)
        if missing and not pays(passes):
            left = f"{passes:.2g} passes remain" if passes != 1 else "only one pass remains"
            logging.info(f"feature cache: not written for {name}: {left}, and caching costs one")
            return None
        if missing:
            self._check_free_space(folder, name, len(split), len(missing))
            self._compute(folder, split, name, missing)
        chunks = [_chunk(folder, number) for number in range(_chunk_count(split))]
        logging.info(f"feature cache: {len(split):,} images of {name} from {folder}")
        return Features(chunks, self._width)

    @property
    def _width(self) -> int:
        return self.network.cnn.output.shape[-1]

    def _find(self, split: dataset_lib.Split, name: str) -> tuple[pathlib.Path, list[int]]:
        """The folder of a split's features, and the numbers of missing or damaged chunks."""
        key = {
            "format": _FORMAT,
            "weights": xception_weights.tensors_sha256(self.network.cnn.get_weights()),
            # Keys and values are those of existing caches: renaming one would orphan them.
            "pictures": hashlib.sha256(np.ascontiguousarray(split.digests).tobytes()).hexdigest(),
            "rgb_view": views_lib.RGB_VERSION,
            "resize_method": self.preprocessing.resize_method,
            "image_size": shapes.IMAGE_SIZE,
            "precision": self.network.precision,
            **devices_lib.arithmetic(),
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        folder = self.directory / digest[:32]
        missing = []
        for number in range(_chunk_count(split)):
            path = _chunk(folder, number)
            if not path.with_suffix(".sha256").exists():
                missing.append(number)
            elif problem := _problem(path, (_chunk_length(number, split), self._width)):
                missing.append(number)
                logging.warning(f"feature cache: {path} {problem}; computing it again")
        try:
            if missing and not (folder / "key.json").exists():
                atomic_files.write_json(folder / "key.json", {**key, "split": name})
        except OSError as error:
            raise _write_error(folder, error) from error
        return folder, missing

    def _check_free_space(self, folder: pathlib.Path, name: str, images: int, chunks: int) -> None:
        """Reports the size of a split's features; raises RunError if the missing do not fit."""
        image_bytes = 4 * self._width
        total = images * image_bytes
        need = min(chunks * CHUNK_SIZE * image_bytes, total)
        logging.info(
            f"feature cache: {images:,} images of {name} x {image_bytes / 1024:.0f} KB = "
            f"{total / 1e6:,.0f} MB in {folder}, {need / 1e6:,.0f} MB of it missing"
        )
        atomic_files.check_free_space(folder, need, "the feature cache", _ALTERNATIVES)

    def _compute(
        self, folder: pathlib.Path, split: dataset_lib.Split, name: str, missing: list[int]
    ) -> None:
        """Computes and writes the missing chunks, in order."""
        indices = np.concatenate(
            [np.arange(_chunk_length(n, split)) + n * CHUNK_SIZE for n in missing]
        )
        pending = np.empty((0, self._width), np.float32)
        unwritten = list(missing)
        done = len(split) - len(indices)
        with progress.Progress(f"features of {name}", len(split), "images", initial=done) as bar:
            for features in self._batches(split, indices):
                pending = np.concatenate([pending, features])
                while unwritten and len(pending) >= (n := _chunk_length(unwritten[0], split)):
                    _write(_chunk(folder, unwritten.pop(0)), pending[:n])
                    pending = pending[n:]
                done += len(features)
                bar.update(done)

    def _batches(self, split: dataset_lib.Split, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Computes the features of images, (n,) indices in a split: (B, 2048) arrays, in order."""
        batch = batch_size(self.strategy)
        step = pipelined.Pipelined(steps.make_feature_step(self.network, self.strategy))
        iterator = input_pipeline.distribute(
            input_pipeline.evaluation(
                split.take(indices), batch_size=batch, preprocessing=self.preprocessing
            ),
            self.strategy,
        )
        for start in range(0, len(indices), batch):
            try:
                images = next(iterator)
            except tf.errors.OpError as error:
                in_batch = indices[start : start + batch]
                raise input_pipeline.decoding_error(split, in_batch, error) from error
            features = step.call(images)
            if features is not None:
                yield features
        yield step.drain()[: len(indices) - start]  # without the padding


def _chunk_count(split: dataset_lib.Split) -> int:
    return -(-len(split) // CHUNK_SIZE)


def _chunk_length(number: int, split: dataset_lib.Split) -> int:
    return min(CHUNK_SIZE, len(split) - number * CHUNK_SIZE)


def _chunk(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"{number:05d}.npy"


def _problem(path: pathlib.Path, shape: tuple[int, int]) -> str:
    """What is wrong with a written chunk; '' if it is intact."""
    try:
        if checksummed.file_digest(path) != path.with_suffix(".sha256").read_text().strip():
            return "is damaged"
        features = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    if features.shape != shape or features.dtype != np.float32:
        return f"holds {features.dtype} {features.shape} instead of float32 {shape}"
    return ""


def _write(path: pathlib.Path, features: np.ndarray) -> None:
    """Writes a chunk, then its checksum: a process killed in between leaves it incomplete."""
    try:
        with atomic_files.replacing(path) as temporary:
            np.save(temporary, features)
            digest = checksummed.file_digest(temporary)
        atomic_files.write_text(path.with_suffix(".sha256"), digest + "\n")
    except OSError as error:
        raise _write_error(path.parent, error) from error


def _write_error(folder: pathlib.Path, error: OSError) -> errors.RunError:
    return errors.RunError(
        f"cannot write the feature cache in {folder} ({error.strerror}): {_ALTERNATIVES}"
    )
