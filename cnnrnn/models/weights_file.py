"""Reads the weights of an Xception from Keras files.

Only tensors are read: nothing in a file is deserialized, imported or unpickled, and the path and
shape of a tensor are checked before its data is read. A file from an untrusted source can have
wrong values, but it cannot run code.

Three layouts are supported, detected from the content and not from the file name:

- legacy Keras HDF5 (the official ImageNet file): the attribute `layer_names` lists the layers, and
  the attribute `weight_names` of a layer its tensors;
- Keras 3 `.weights.h5`: `layers/<class in snake case>_<count>/vars/<index>`, where layers of a
  class are counted in the order of the model's layers, and nested models nest;
- Keras 3 `.keras`: a zip archive of one HDF5 file in the second layout. The configuration in it is
  not read: class and count identify the layer of an Xception.
"""

import collections
import contextlib
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import h5py
import keras
import numpy as np

from cnnrnn.system import text as text_lib

Arrays = list[np.ndarray]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
# The classes of Xception's layers with weights, and their names in Keras files.
_STORE_KINDS = {
    "Conv2D": "conv2d",
    "SeparableConv2D": "separable_conv2d",
    "BatchNormalization": "batch_normalization",
}


class Unusable(Exception):
    """A source of weights cannot be used; the message is the reason, on one line."""


class Absent(Unusable):
    """A source does not exist; this is not reported on the console."""


def read(path: pathlib.Path, layers: list[keras.Layer]) -> Arrays:
    """Reads the CNN's weights from a file in any of the three layouts.

    Args:
        path: of the file.
        layers: the CNN's layers that have weights.

    Returns:
        The weights in the order of `Model.get_weights`.

    Raises:
        Unusable: if the file is missing, damaged or of another network; the message begins with
            its path.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(len(_HDF5_SIGNATURE))
            stream.seek(0)
            if start == _HDF5_SIGNATURE:
                return _read_hdf5(stream, layers)
            if start.startswith(_ZIP_SIGNATURE):
                return read_archive(stream, layers)
        raise Unusable("it is neither an HDF5 file nor a .keras archive")
    except FileNotFoundError as error:
        raise Absent(f"there is no file {path}") from error
    except Unusable as error:
        raise Unusable(f"{path}: {error}") from error
    except Exception as error:  # h5py and zipfile raise many types for damaged files
        raise Unusable(f"{path}: it cannot be read: {text_lib.one_line(error)}") from error


def read_archive(stream: BinaryIO, layers: list[keras.Layer]) -> Arrays:
    """Reads the CNN's weights from a .keras archive."""
    with zipfile.ZipFile(stream) as archive, spooled(archive, "model.weights.h5") as member:
        return _read_hdf5(member, layers)


def _read_hdf5(stream: BinaryIO, layers: list[keras.Layer]) -> Arrays:
    with h5py.File(stream, "r") as file:
        # A model saved with its configuration has its weights one level deeper.
        root = "model_weights" if "model_weights" in file else "/"
        if "layer_names" in _node(file, root).attrs:
            paths = _locate_legacy(file, root)
        else:
            paths = _locate_saved(file, layers)
        return _take(file, paths, layers)


def _locate_legacy(file: h5py.File, root: str) -> list[str]:
    """The paths of the tensors in the legacy layout, in the order of the file's lists."""
    paths = []
    for layer in _names(file, root, "layer_names"):
        # The classifier, in files of the network with its top.
        if layer != "predictions":
            group = f"{root}/{layer}"
            paths += [f"{group}/{name}" for name in _names(file, group, "weight_names")]
    return paths


def _locate_saved(file: h5py.File, layers: list[keras.Layer]) -> list[str]:
    """The paths of the tensors in Keras 3's layout, in the order of `layers`.

    The Xception may be the saved model, or nested in it at any depth.
    """
    expected = store_names(layers)
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
        raise Unusable(
            f"expected {len(expected)} convolution and batch normalization layers in one model, "
            f"found {max(counts, default=0)}"
        )
    groups = [f"{root}/{name}/vars" for name in expected]
    return [f"{group}/{index}" for group in groups for index in range(len(_node(file, group)))]


def _take(file: h5py.File, paths: list[str], layers: list[keras.Layer]) -> Arrays:
    """Reads the tensors, after checking the types and shapes of all of them."""
    variables = [(layer.name, variable) for layer in layers for variable in layer.weights]
    if len(paths) != len(variables):
        raise Unusable(f"expected {len(variables)} tensors, found {len(paths)}")
    datasets = []
    for (layer, variable), path in zip(variables, paths, strict=True):
        name = f"{path} (for {layer}/{variable.name})"
        dataset = _node(file, path)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
            raise Unusable(f"{name}: expected a tensor of floating-point numbers")
        if dataset.shape != tuple(variable.shape):
            raise Unusable(
                f"{name}: expected the shape {tuple(variable.shape)}, found {dataset.shape}"
            )
        if dataset.external or dataset.is_virtual:
            raise Unusable(f"{name}: its data is in another file")
        datasets.append((name, dataset))
    arrays = []
    for name, dataset in datasets:
        array = dataset[()].astype(np.float32)
        if not np.isfinite(array).all():
            raise Unusable(f"{name}: contains values that are not finite")
        arrays.append(array)
    return arrays


def _node(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset:
    """The node at a path, following hard links only: an external link could open any file."""
    node = file
    for part in filter(None, path.split("/")):
        if not isinstance(node, h5py.Group) or part not in node:
            raise Unusable(f"it has no {path}")
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise Unusable(f"{path} is a link")
        node = node[part]
    return node


def _names(file: h5py.File, path: str, attribute: str) -> list[str]:
    """Reads a list of names from an attribute; bytes in old files, text in new ones."""
    names = _node(file, path).attrs[attribute]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def store_names(layers: list[keras.Layer]) -> list[str]:
    """The names of layers in Keras files: the class, and a count from the second one on."""
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
def spooled(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    """Extracts a member into a temporary file, since seeking in a compressed one is slow."""
    with tempfile.TemporaryFile() as copy:
        with archive.open(name) as member:
            shutil.copyfileobj(member, copy, 1 << 20)
        copy.seek(0)
        yield copy
