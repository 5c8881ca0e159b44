"""Settings of a network of a comparison, recorded when its training starts and checked later.

The identity of a run lets a user train on with more epochs. The networks of a comparison must not.
"""

import json
import pathlib
from typing import Any

from cnnrnn import errors
from cnnrnn.system import atomic_files

_FILE = "settings.json"


def check(folder: pathlib.Path, settings: dict[str, Any]) -> None:
    """Records the settings of a network, or compares them with the recorded ones.

    Args:
        folder: of the network's run; it need not exist.
        settings: JSON values by name.

    Raises:
        UsageError: other settings are recorded.
    """
    path = folder / _FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(path, settings)
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    differences = [
        f"{name}: {recorded.get(name)} (now {settings.get(name)})"
        for name in sorted(recorded.keys() | settings.keys())
        if recorded.get(name) != settings.get(name)
    ]
    if differences:
        raise errors.UsageError(
            f"{folder} was trained with {', '.join(differences)}: give the recorded values, or "
            "another --run=NAME for this comparison."
        )
