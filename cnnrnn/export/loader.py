"""An export, read back."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from cnnrnn import errors
from cnnrnn.system import checksummed


@dataclasses.dataclass(frozen=True)
class Export:
    """Attributes:
    signatures: those of the SavedModel, see `saved_model`.
    notes: what made it, see `export`.
    """

    signatures: Mapping[str, Callable[..., dict[str, tf.Tensor]]]
    notes: dict[str, Any]


def is_export(folder: pathlib.Path) -> bool:
    """Whether a folder is an export, and not the run that it was made from."""
    return (folder / "saved_model").is_dir()


def load(folder: pathlib.Path) -> Export:
    """Checks an export and loads its SavedModel.

    Raises:
        UsageError: the folder is no export.
        RunError: the export is damaged.
    """
    if not (folder / checksummed.CHECKSUMS).exists():
        raise errors.UsageError(
            f"{folder} is no export: run ./run.sh export with the same flags first."
        )
    try:
        notes = checksummed.read_metadata(folder)
    except ValueError as error:
        raise errors.RunError(f"the export {folder} is damaged: {error}. Export anew.") from error
    return Export(tf.saved_model.load(str(folder / "saved_model")).signatures, notes)
