"""A run that has been trained: found by its name, and what its folder records of a phase."""

from collections.abc import Sequence
from typing import Any

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.runs import run_folder
from cnnrnn.settings import paths


def find(arguments: Sequence[str], usage: str, config: config_lib.Config) -> run_folder.RunFolder:
    """The run that the arguments of a command name: by its path, or by its name in --runs_dir.

    Args:
        arguments: of the command, one.
        usage: how the command is given, for the error.
        config: for `runs_dir`.

    Raises:
        UsageError: there is no such run, or not one argument.
    """
    if len(arguments) != 1:
        raise errors.UsageError(
            f"expected one run: {usage}. Received: {' '.join(arguments) or 'nothing'}."
        )
    (name,) = arguments
    runs_dir = paths.expanded(config.run.runs_dir)
    for root in (paths.expanded(name), runs_dir / name):
        if (root / "manifest.json").is_file():
            return run_folder.RunFolder(root.resolve())
    raise errors.UsageError(
        f"{name} is not a run: expected a folder with a manifest.json, or the name of one in "
        f"--runs_dir={config.run.runs_dir}."
    )


def record(folder: run_folder.RunFolder, phase: phases.Phase, name: str) -> dict[str, Any]:
    """What manifest.json or config.json holds of a phase.

    Raises:
        UsageError: nothing, or something else.
    """
    records = folder.manifest() if name == "manifest.json" else folder.config()
    found = records.get(phase.name)
    if not isinstance(found, dict):
        raise errors.UsageError(
            f"{folder.root / name} is damaged: it does not describe {phase.name}. Restore the "
            "file; without it the run cannot be reproduced."
        )
    return found


def settings(folder: run_folder.RunFolder, phase: phases.Phase) -> config_lib.Config:
    """The settings of a phase that config.json holds, for one process, also if several trained it.

    Raises:
        UsageError: there are none, or they are damaged.
    """
    try:
        recorded = config_lib.from_json(record(folder, phase, "config.json"))
    except ValueError as error:
        raise errors.UsageError(f"{folder.root / 'config.json'} is damaged: {error}") from error
    return recorded.replace(strategy="auto")
