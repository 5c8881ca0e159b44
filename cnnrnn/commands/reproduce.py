"""`reproduce RUN`: compares what made a run with this machine, makes it again, compares both."""

import pathlib
import subprocess
import sys
from collections.abc import Sequence

import keras
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import cnn_branch, xception_weights
from cnnrnn.runs import best_weights, manifest, run_folder
from cnnrnn.system import console
from cnnrnn.system import devices as devices_lib

_PROGRAM = (sys.executable, "-P", "-m", "cnnrnn.main")


def run(
    arguments: Sequence[str],
    config: config_lib.Config,
    program: Sequence[str] = _PROGRAM,
) -> None:
    """Makes a run again, beside it under its name with '-reproduced', and prints the verdict.

    Args:
        arguments: the run's folder, or its name in --runs_dir.
        config: for --runs_dir.
        program: what is run, up to the command's name.

    Raises:
        UsageError: there is no such run.
        RunError: the run came out otherwise, or could not be made.
    """
    if len(arguments) != 1:
        raise errors.UsageError("expected one run: ./run.sh reproduce RUN")
    original = _find(arguments[0], config)
    again = run_folder.RunFolder(original.root.with_name(f"{original.root.name}-reproduced"))
    todo = [phase for phase in phases.BY_NAME.values() if best_weights.find(original.best, phase)]
    if not todo:
        raise errors.UsageError(f"{original.root} holds no trained weights: nothing to reproduce.")
    settings = {phase: _settings(original, phase, again.root) for phase in todo}
    for phase in todo:
        recorded = original.manifest()[phase.name]
        for line in manifest.differences(recorded, _now(phase, settings[phase])) or ["none"]:
            logging.info(f"{phase.name}, difference of this machine: {line}")
    for phase in todo:
        _call([*program, phase.name, *settings[phase].to_flags()])
    if original.results.exists():
        _call([*program, "evaluate", *settings[todo[-1]].to_flags()])
    _compare(original, again, todo)


def _find(name: str, config: config_lib.Config) -> run_folder.RunFolder:
    for root in (pathlib.Path(name).expanduser(), pathlib.Path(config.run.runs_dir) / name):
        if (root / "manifest.json").is_file():
            return run_folder.RunFolder(root.resolve())
    raise errors.UsageError(
        f"{name} is no run: expected a folder with a manifest.json, or the name of one in "
        f"--runs_dir={config.run.runs_dir}."
    )


def _settings(
    original: run_folder.RunFolder, phase: phases.Phase, root: pathlib.Path
) -> config_lib.Config:
    recorded = config_lib.from_json(original.config()[phase.name])
    return recorded.replace(runs_dir=str(root.parent), run=root.name)


def _now(phase: phases.Phase, config: config_lib.Config) -> dict:
    """The manifest that a phase would have here and now."""
    with console.captured():  # the children report on the data set themselves
        data = dataset_lib.load(config)
    weights = None
    if phase is phases.PHASE1 and not config.training.init_from:
        image = keras.Input((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS))
        cnn = cnn_branch.build(image, synchronized_batchnorm=False)
        weights = xception_weights.load_into(cnn, config.training.xception_weights)
    devices = devices_lib.describe(config.run.logical_cpus)
    return manifest.describe(phase, config, data, devices, "", weights)


def _call(command: Sequence[str]) -> None:
    code = subprocess.run(command).returncode
    if code:
        raise errors.RunError(
            f"`{' '.join(command[len(_PROGRAM) :])}` ended with exit code {code}."
        )


def _compare(
    original: run_folder.RunFolder,
    again: run_folder.RunFolder,
    done: Sequence[phases.Phase],
) -> None:
    """Prints both runs' figures; raises RunError unless their weights are the same to the bit."""
    different = []
    for phase in done:
        before, now = (best_weights.find(folder.best, phase) for folder in (original, again))
        same = before.sha256 == now.sha256
        logging.info(f"{phase.name} then   epoch {before.epoch}  {before.validation}")
        logging.info(f"{phase.name} again  epoch {now.epoch}  {now.validation}")
        logging.info(
            f"{phase.name}        weights {'the same to the bit' if same else 'DIFFERENT'}"
        )
        different += [] if same else [phase.name]
    if different:
        raise errors.RunError(
            f"{original.root} was not reproduced to the bit: {', '.join(different)}. The "
            "differences of this machine are above; across processors and versions small ones of "
            "the figures are to be expected."
        )
    logging.info(f"verdict  {original.root} was reproduced, to the bit")
