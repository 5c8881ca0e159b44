"""Settings of a network of a comparison, recorded when its training starts and checked later.

The identity of a run lets a user train on with more epochs. The networks of a comparison must not.
"""

import json
from typing import Any

from cnnrnn import errors, phases
from cnnrnn.runs import run_folder
from cnnrnn.system import atomic_files
from cnnrnn.system import text as text_lib

_FILE = "settings.json"
_SHOWN = 3  # differences
_LENGTH = 200  # characters of a value


def check(folder: run_folder.RunFolder, settings: dict[str, Any], *, is_complete: bool) -> None:
    """Compares the settings of a network with those that its training was started with, if any.

    Args:
        folder: of the network's run; it need not exist.
        settings: JSON values by name, the most telling ones first.
        is_complete: whether the network was trained to its end; its weights may be gone.

    Raises:
        UsageError: it was started with other settings, or by a version that did not record them.
    """
    if not is_complete and not _has_begun(folder):
        return
    path = folder.root / _FILE
    if not path.exists():
        raise errors.UsageError(
            f"{folder.root} was trained by an earlier version of this program: give another "
            "--run=NAME."
        )
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.UsageError(
            f"{path} is damaged ({text_lib.first_line(error)}): restore it from a copy, or give "
            "another --run=NAME."
        ) from error
    differences = [
        f"{name}: {_cut(recorded[name])} (now {_cut(value)})"
        for name, value in settings.items()
        if name in recorded and recorded[name] != value
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise errors.UsageError(
            f"{folder.root} was trained with {', '.join(differences[:_SHOWN])}"
            f"{f', and {more} more differ' if more > 0 else ''}. Give the recorded values, or "
            "another --run=NAME for this comparison."
        )


def record(folder: run_folder.RunFolder, settings: dict[str, Any]) -> None:
    """Records the settings of a network that is trained next, unless it resumes."""
    folder.root.mkdir(parents=True, exist_ok=True)
    if not _has_begun(folder):
        atomic_files.write_json(folder.root / _FILE, settings)


def _has_begun(folder: run_folder.RunFolder) -> bool:
    """Whether anything was trained; a mistake before that does not bind the folder."""
    return any(folder.has_begun(phase) for phase in phases.BY_NAME.values())


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."
