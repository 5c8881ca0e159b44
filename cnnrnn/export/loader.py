"""Loads an export.

A SavedModel is a program: TensorFlow runs its graph with the rights of the user, and a graph can
read and write files. So an export is loaded only if its manifest (seal.json) is of an export and
lists every file of the SavedModel with the right checksum. This shows that the files are intact,
not who wrote them: anyone can write a manifest. The other files of an export are not read here, so
they may be missing or edited.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from cnnrnn import errors, shapes
from cnnrnn.settings import data as data_settings
from cnnrnn.settings import paths
from cnnrnn.system import checksummed
from cnnrnn.system import text as text_lib

WARNING = (
    "An export runs as a program, which can read and write your files: use it only if you trust "
    "its source."
)

_SAVED_MODEL = "saved_model"
_SIGNATURES = {"serving_default", "explained", "about"}
_METADATA = {"classes", "top", "resize_method"}  # what commands read of it


@dataclasses.dataclass(frozen=True)
class Export:
    """A loaded export.

    Attributes:
        signatures: of the SavedModel, by name; see `saved_model`.
        metadata: see `bundle.describe`.
    """

    signatures: Mapping[str, Callable[..., dict[str, tf.Tensor]]]
    metadata: dict[str, Any]


def check_image_size(export: Export, folder: pathlib.Path, asked: int) -> None:
    """Checks that an export classifies images at the size that was asked for.

    Args:
        export: loaded from `folder`.
        folder: for the message.
        asked: --eval_image_size, 0 if it was not given.

    Raises:
        UsageError: its size is another one, which is part of its graph.
    """
    size = export.metadata.get("cnn_image_size", shapes.IMAGE_SIZE)  # missing: an earlier version
    if asked not in (0, size):
        raise errors.UsageError(
            f"--eval_image_size={asked}: the export {folder} was made for {size}. Run "
            f"{text_lib.program()} export with --eval_image_size={asked}, or leave out the flag."
        )


def check_max_megapixels(export: Export, folder: pathlib.Path, asked: float) -> None:
    """Checks that an export reads images up to the size that was asked for.

    Args:
        export: loaded from `folder`.
        folder: for the message.
        asked: --max_megapixels.

    Raises:
        UsageError: its limit is another one, which is part of its graph, and `asked` is not the
            default.
    """
    limit = export.metadata.get("max_megapixels")  # missing: an earlier version
    default = data_settings.DataSettings().max_megapixels
    if limit is None or asked in (default, float(limit)):
        return
    if limit != f"{asked:g}":  # as an earlier version recorded it
        raise errors.UsageError(
            f"--max_megapixels={asked:.15g}: the export {folder} was made for {limit}. Run "
            f"{text_lib.program()} export with --max_megapixels={asked:.15g}, or leave out the "
            "flag."
        )


def check_top(export: Export, folder: pathlib.Path, asked: int) -> int:
    """Checks that an export returns as many classes per image as were asked for.

    Args:
        export: loaded from `folder`.
        folder: for the message.
        asked: --top, 0 if it was not given.

    Returns:
        The number of classes to report for each image.

    Raises:
        UsageError: it returns fewer, although it knows more.
    """
    exported = export.metadata["top"]
    if asked > exported and export.metadata["classes"] > exported:
        raise errors.UsageError(
            f"--top={asked}: the export {folder} returns {exported} classes per image. Run "
            f"{text_lib.program()} export with --top={asked}, or give a smaller --top."
        )
    return asked or exported


def is_export(folder: pathlib.Path) -> bool:
    """Whether a folder has the layout of an export (and not that of a run)."""
    return (folder / _SAVED_MODEL).is_dir()


def load(folder: pathlib.Path, *, trusted: bool = False) -> Export:
    """Loads the SavedModel of an export.

    Args:
        folder: the export.
        trusted: whether to load it without checking the manifest, which may be missing.

    Raises:
        UsageError: if the folder is not an export of this version, has no manifest of one, or has a
            path that TensorFlow cannot use.
        RunError: if the files differ from the manifest, or TensorFlow cannot load them.
    """
    if not is_export(folder):
        raise errors.UsageError(
            f"{folder} is not an export: run {text_lib.program()} export with the same flags first."
        )
    paths.check_no_wildcards(folder, "the export", "move or rename it")
    metadata = None if trusted else _check_manifest(folder)
    try:
        signatures = tf.saved_model.load(str(folder / _SAVED_MODEL)).signatures
    # IndexError: a truncated file of variables.
    except (tf.errors.OpError, IndexError, OSError, ValueError) as error:
        raise _damaged(folder, text_lib.first_line(error)) from error
    if _SIGNATURES - set(signatures):
        raise _not_an_export(folder, "signatures", _SIGNATURES - set(signatures))
    if metadata is None:
        metadata = _own_metadata(signatures)
        if _METADATA - set(metadata):
            raise _not_an_export(folder, "metadata", _METADATA - set(metadata))
    return Export(signatures, metadata)


def _own_metadata(signatures: Mapping[str, Callable[..., dict[str, tf.Tensor]]]) -> dict[str, Any]:
    """The metadata in the SavedModel; {} if its signature "about" returns something else."""
    try:
        metadata = json.loads(signatures["about"]()["metadata"].numpy())
    except (KeyError, TypeError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _check_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The metadata in the manifest, if it is one of an export and the SavedModel matches it."""
    if not (folder / checksummed.CHECKSUMS).exists():
        raise errors.UsageError(
            f"{folder} has no {checksummed.CHECKSUMS}, the manifest that export writes. {WARNING} "
            "To load it without a manifest, give --trust_export."
        )
    try:
        metadata = checksummed.read_metadata(folder, below=_SAVED_MODEL)
        listed = checksummed.read_json(folder / checksummed.CHECKSUMS)["files"]
        for path in sorted((folder / _SAVED_MODEL).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not path.is_dir() and name not in listed:
                raise ValueError(f"{name} is not listed in {checksummed.CHECKSUMS}")
    except ValueError as error:
        raise _damaged(folder, error) from error
    if _METADATA - set(metadata):
        raise _not_an_export(folder, "metadata", _METADATA - set(metadata))
    return metadata


def _damaged(folder: pathlib.Path, problem: object) -> errors.RunError:
    return errors.RunError(
        f"the export {folder} is damaged: {problem}. Run {text_lib.program()} export again."
    )


def _not_an_export(folder: pathlib.Path, what: str, missing: set[str]) -> errors.UsageError:
    return errors.UsageError(
        f"{folder} was not written by this version of export (missing {what}: "
        f"{', '.join(sorted(missing))}): run {text_lib.program()} export again."
    )
