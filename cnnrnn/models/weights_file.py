"""Reads the tensors of an Xception out of Keras files, and nothing else.

Nothing in a file is deserialized, imported or unpickled, and a tensor's place and shape are
checked before its data is read. So a file from a stranger can be wrong, but it cannot run
anything.

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
# The only classes in Xception that hold weights, as Keras names them inside its files.
_STORE_KINDS = {
    "Conv2D": "conv2d",
    "SeparableConv2D": "separable_conv2d",
    "BatchNormalization": "batch_normalization",
}


class Unusable(Exception):
    """A source of weights cannot be used; the message is the reason, in one line."""


class Absent(Unusable):
    """A source is simply not there, which is worth no line of its own on the console."""


def read(path: pathlib.Path, layers: list[keras.Layer]) -> Arrays:
    """Reads the CNN's tensors from a file in any of the three layouts.

    Raises:
        Unusable: whatever is wrong with the file; the message begins with its path.
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
    except Exception as error:  # h5py and zipfile raise almost anything over a damaged file.
        raise Unusable(f"{path}: it cannot be read: {text_lib.one_line(error)}") from error


def read_archive(stream: BinaryIO, layers: list[keras.Layer]) -> Arrays:
    with zipfile.ZipFile(stream) as archive, spooled(archive, "model.weights.h5") as member:
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
    """Reads the tensors, after all of them were found to have the CNN's shapes."""
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
            raise Unusable(f"{name}: its data lie in another file")
        datasets.append((name, dataset))
    arrays = []
    for name, dataset in datasets:
        array = dataset[()].astype(np.float32)
        if not np.isfinite(array).all():
            raise Unusable(f"{name}: holds values that are not finite")
        arrays.append(array)
    return arrays


def _node(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset:
    """Follows a path by plain links only: an external one would open a file of its choosing."""
    node = file
    for part in filter(None, path.split("/")):
        if not isinstance(node, h5py.Group) or part not in node:
            raise Unusable(f"it has no {path}")
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise Unusable(f"{path} is a link")
        node = node[part]
    return node


def _names(file: h5py.File, path: str, attribute: str) -> list[str]:
    """Reads a list of names from an attribute, where old files have bytes and new ones text."""
    names = _node(file, path).attrs[attribute]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def store_names(layers: list[keras.Layer]) -> list[str]:
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
def spooled(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    """Copies a member out into a nameless file, for seeking is slow inside a compressed one."""
    with tempfile.TemporaryFile() as copy:
        with archive.open(name) as member:
            shutil.copyfileobj(member, copy, 1 << 20)
        copy.seek(0)
        yield copy
