"""Disk cache of the frozen CNN's features: computed once, used by every later epoch of phase 1.

In phase 1 the CNN never changes, so an image's 2048 features are the same in each epoch. The
features of a split are stored in chunks of 512 images:

  DIR/KEY/key.json        the values that KEY is the hash of
  DIR/KEY/00000.npy       (512, 2048) float32, images 0 to 511; the last chunk is shorter
  DIR/KEY/00000.sha256    checksum of that file; a chunk without it is incomplete

The workers of a cluster compute the features together. DIR may be on storage that they share, or
each has its own.

KEY is derived from all that determines the features: the CNN's weights, the images, their
preprocessing, the precision, and on GPUs how they round. So runs share features, and a cache never
becomes stale: other inputs have another key.

A randomly augmented image has no fixed features. With --cached_views=K the training images have K
fixed views, and the cache holds one row for each: view v of image i is row i * K + v. K, the policy
and the seed are then part of KEY. Mixed images are not cached.

Training reads images in shuffled order (see `input_pipeline`), so features are looked up by index
through memory maps: resident memory does not grow with the number of images.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import errors
from cnnrnn.datasets import input_pipeline, splits
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.models import network as network_lib
from cnnrnn.models import xception_weights
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import atomic_files, checksummed, pipelined, progress, shared_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import feature_rows, steps

_FORMAT = 1
_BATCH_PER_REPLICA = 32
_OPEN_CHUNKS = 100  # of a split; a process may often have no more than 256 or 1,024 open files
_ALTERNATIVES = "give another folder by --feature_cache=DIR, or disable it by --feature_cache=off."


def passes_over(steps: int, batch_size: int, images: int) -> float:
    """How often training steps pass over all images.

    The rest of a batch, which an epoch leaves out, does not count: an epoch over all is one pass.
    """
    return steps / max(images // batch_size, 1)


def pays(passes: float, views: int = 1) -> bool:
    """Whether caching a split is worth it for this many more passes.

    As many passes as views cost the same with and without the cache, but evaluation and other runs
    can then use it, as those of `ablate` do.

    Args:
        passes: over the images.
        views: of each image, 0 if they are not counted; caching costs a pass for each.
    """
    return 0 < views <= passes


def batch_size(strategy: tf.distribute.Strategy) -> int:
    """Images per step of the CNN, summed over all replicas."""
    return _BATCH_PER_REPLICA * strategy.num_replicas_in_sync


class Features:
    """The cached features of a split; implements `input_pipeline.Features`."""

    def __init__(self, chunks: list[pathlib.Path], width: int):
        self._chunks = chunks
        self._width = width
        self._opened = functools.lru_cache(_OPEN_CHUNKS)(_opened)

    def of(self, indices: tf.Tensor) -> tf.Tensor:
        # Not stateful: deterministic op order would let only one of these calls run at a time.
        features = tf.numpy_function(self._gather, [indices], tf.float32, stateful=False)
        return tf.ensure_shape(features, (indices.shape[0], self._width))

    def _gather(self, indices: np.ndarray) -> np.ndarray:
        size = feature_rows.CHUNK_SIZE
        features = np.empty((len(indices), self._width), np.float32)
        for row, i in zip(features, indices, strict=True):
            row[:] = self._opened(self._chunks[i // size])[i % size]  # a view would keep the file
        return features


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

    def features(
        self,
        split: splits.Split,
        name: str,
        passes: float,
        samples: training_samples_lib.TrainingSamples | None = None,
    ) -> Features | None:
        """The features of a split; missing ones are computed if that pays off.

        Args:
            split: training or validation images.
            name: of the split, for messages.
            passes: how many more passes over the split there will be; 0 to use only what is there.
            samples: of training; None for images as they are.

        Returns:
            None if no two views of an image are equal, or if features are missing and computing
            them does not pay off. The CNN then runs in every step.

        Raises:
            RunError: the disk is full or cannot be written, or an image cannot be decoded.
        """
        if samples is not None and samples.view_count == 0:
            logging.info(f"feature cache: not used for {name}: {_why_not_counted(samples)}")
            return None
        if samples is not None and samples.augmentation.changes_anything:
            samples = dataclasses.replace(samples, preprocessing=self.preprocessing)
        else:
            samples = None
        rows = feature_rows.Rows(split, name, samples)
        key = self._key(rows)
        folder = self._folder(key)
        missing = self._missing(folder, rows)
        # Each worker may have a folder of its own, from which other chunks are missing.
        lacks = np.isin(np.arange(rows.chunks), missing).astype(np.int32)
        missing = list(map(int, np.flatnonzero(self._workers.sums(lacks))))
        if missing and not pays(passes, rows.views):
            if passes:
                cost = "one" if rows.views == 1 else rows.views
                logging.info(
                    f"feature cache: not written for {name}: {passes:.2g} passes remain, and "
                    f"caching costs {cost}"
                )
            return None
        if missing:
            self._prepare(folder, key, rows, len(missing))
            self._compute(folder, rows, missing)
        else:
            logging.info(f"feature cache: {rows} from {folder}")
        chunks = [_chunk(folder, number) for number in range(rows.chunks)]
        return Features(chunks, self._width)

    @property
    def _workers(self) -> workers_lib.Workers:
        return workers_lib.Workers(self.strategy)

    @property
    def _width(self) -> int:
        return self.network.cnn.output.shape[-1]

    def _key(self, rows: feature_rows.Rows) -> dict[str, Any]:
        """All that determines the features."""
        return {
            "format": _FORMAT,
            "weights": xception_weights.tensors_sha256(self.network.cnn.get_weights()),
            # Keys and values are those of existing caches: renaming one would orphan them.
            "pictures": rows.images_sha256,
            "rgb_view": views_lib.RGB_VERSION,
            "resize_method": self.preprocessing.resize_method,
            "image_size": self.preprocessing.image_size,
            "precision": self.network.precision,
            **devices_lib.arithmetic(),
            **rows.augmentation,
        }

    def _folder(self, key: dict[str, Any]) -> pathlib.Path:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.directory / digest[:32]

    def _missing(self, folder: pathlib.Path, rows: feature_rows.Rows) -> list[int]:
        """The numbers of missing or damaged chunks."""
        missing = []
        for number in range(rows.chunks):
            path = _chunk(folder, number)
            if not path.with_suffix(".sha256").exists():
                missing.append(number)
            elif problem := _problem(path, (rows.chunk_length(number), self._width)):
                missing.append(number)
                logging.warning(f"feature cache: {path} {problem}; computing it again")
        return missing

    def _prepare(
        self, folder: pathlib.Path, key: dict[str, Any], rows: feature_rows.Rows, chunks: int
    ) -> None:
        """Writes the key and reports the size of a split's features.

        Raises:
            RunError: the folder cannot be written, or lacks the space for the missing chunks.
        """
        try:
            if not (folder / "key.json").exists():
                atomic_files.write_json(folder / "key.json", {**key, "split": rows.name})
        except OSError as error:
            raise _write_error(folder, error) from error
        row_bytes = 4 * self._width
        total = len(rows) * row_bytes
        need = min(chunks * feature_rows.CHUNK_SIZE * row_bytes, total)
        logging.info(
            f"feature cache: computing {rows}, {need / 1e6:,.1f} of {total / 1e6:,.1f} MB, in "
            f"{folder}"
        )
        atomic_files.check_free_space(folder, need, "the feature cache", _ALTERNATIVES)

    def _compute(
        self,
        folder: pathlib.Path,
        rows: feature_rows.Rows,
        missing: list[int],
    ) -> None:
        """Computes and writes the missing chunks, in order.

        Each worker computes its share. Then all have all features, and one worker of those that
        share a folder writes them.
        """
        workers = self._workers
        writes = shared_folder.is_writer(folder, workers)
        numbers = np.concatenate(
            [np.arange(rows.chunk_length(n)) + n * feature_rows.CHUNK_SIZE for n in missing]
        )
        pending = np.empty((0, self._width), np.float32)
        unwritten = list(missing)
        done = len(rows) - len(numbers)
        with progress.Progress(
            f"features of {rows.name}", len(rows), "images", initial=done
        ) as bar:
            for features in self._batches(rows, numbers):
                pending = np.concatenate([pending, features])
                while unwritten and len(pending) >= (n := rows.chunk_length(unwritten[0])):
                    chunk = _chunk(folder, unwritten.pop(0))
                    if writes:
                        _write(chunk, pending[:n])
                    pending = pending[n:]
                done += len(features)
                bar.update(done)
                workers.check_stop()
        workers.barrier()

    def _batches(self, rows: feature_rows.Rows, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Computes the features of rows, (n,) numbers: (B, 2048) arrays, in order."""
        batch = batch_size(self.strategy)
        step = pipelined.Pipelined(steps.make_feature_step(self.network, self.strategy))
        images = rows.images(numbers, batch, self.preprocessing, self._workers.share)
        iterator = input_pipeline.distribute(images, self.strategy)
        for start in range(0, len(numbers), batch):
            in_batch = numbers[start : start + batch]
            indices = functools.partial(np.floor_divide, in_batch, rows.views)
            with input_pipeline.naming_bad_images(rows.split, indices):
                images = next(iterator)
            features = step.call(images)
            if features is not None:
                yield features
        yield step.drain()[: len(numbers) - start]  # without the padding


def _why_not_counted(samples: training_samples_lib.TrainingSamples) -> str:
    """Why no two views of an image are equal, and what follows."""
    cnn = "so the CNN runs in every step"
    if samples.mixing.is_on:
        return f"with --mixup or --cutmix every training image is different in each epoch, {cnn}"
    return (
        f"with --augmentation={samples.augmentation.policy} every training image is different in "
        f"each epoch, {cnn}; with --cached_views=K, K views of each are cached and used in turn"
    )


def _chunk(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"{number:05d}.npy"


def _opened(path: pathlib.Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _problem(path: pathlib.Path, shape: tuple[int, int]) -> str:
    """What is wrong with a written chunk; '' if it is intact."""
    try:
        if checksummed.file_digest(path) != path.with_suffix(".sha256").read_text().strip():
            return "is damaged"
        features = _opened(path)
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
