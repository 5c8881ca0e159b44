"""`reproduce RUN`: trains a recorded run again and compares environment, figures and weights."""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import cnn_branch, xception_weights
from cnnrnn.runs import best_weights, checkpoints, manifest, recorded_run, run_folder
from cnnrnn.system import child_process, console
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import text as text_lib
from cnnrnn.training import class_weights, initial_weights, stopping


def run(
    arguments: Sequence[str],
    config: config_lib.Config,
    program: Sequence[str] = child_process.PROGRAM,
) -> None:
    """Reproduces a run in a folder beside it, NAME-reproduced, and prints the verdict.

    Args:
        arguments: the run's folder, or its name in --runs_dir.
        config: for --runs_dir and --run, the name of the new run.
        program: the command line of the child processes, up to the command word.

    Raises:
        UsageError: there is no such run, or its records are damaged.
        RunError: a phase failed, or its weights differ from the recorded ones.
    """
    _check_flags(config)
    original = recorded_run.find(arguments, "reproduce RUN", config)
    name = config.run.name or f"{original.root.name}-reproduced"
    reproduced = run_folder.RunFolder(original.root.with_name(name))
    if reproduced.root == original.root:
        raise errors.UsageError(f"--run={name} is the run itself: give another name.")
    todo = [phase for phase in phases.BY_NAME.values() if best_weights.find(original.best, phase)]
    if not todo:
        raise errors.UsageError(f"{original.root} holds no trained weights: nothing to reproduce.")
    manifests = {phase: recorded_run.record(original, phase, "manifest.json") for phase in todo}
    for phase, described in manifests.items():
        if "average" in described:
            raise errors.UsageError(
                f"{phase.name} of {original.root} was not trained: it is an average, which "
                f"`{text_lib.program()} average` makes again from {described['started_from']}."
            )
    settings = {phase: _settings(original, phase, reproduced.root) for phase in todo}
    for phase in todo:
        _check_ended(original, phase, settings[phase])
        _check_start(original, phase, settings[phase], manifests[phase])
    was_begun = reproduced.root.exists()
    if was_begun:
        for phase in todo:
            _check_length(reproduced, phase, settings[phase], may_grow=not config.run.name)
        logging.info(
            f"note: {reproduced.root} exists: it is continued, and phases that it has finished are "
            "compared without training them again. To train all again, delete it first."
        )
    for phase in todo:
        differences = manifest.differences(
            manifests[phase], _today(original, phase, settings[phase])
        )
        for line in differences or ["none"]:
            logging.info(f"{phase.name}, differences from the recorded environment: {line}")
    for phase in todo:
        child_process.run(program, [phase.name, *settings[phase].to_flags()])
    if original.results.exists():
        child_process.run(program, ["evaluate", *settings[todo[-1]].to_flags()])
    _compare(original, reproduced, todo)
    earlier = f" (at least in part by an earlier call, in {reproduced.root})" if was_begun else ""
    logging.info(f"verdict: {original.root} was reproduced bit for bit{earlier}")


def _check_flags(config: config_lib.Config) -> None:
    """Raises UsageError for a flag that would be ignored."""
    for flag in config.to_flags():
        name = flag.partition("=")[0]
        if name not in ("--run", "--runs_dir"):
            raise errors.UsageError(
                f"{name} cannot be combined with reproduce: the settings are those of the "
                "recorded run."
            )


def _settings(
    original: run_folder.RunFolder, phase: phases.Phase, root: pathlib.Path
) -> config_lib.Config:
    """The recorded settings of a phase, for a run folder at `root`; on GPUs --deterministic."""
    recorded = recorded_run.settings(original, phase)
    best = best_weights.find(original.best, phase)
    if recorded.training.max_minutes[phase.index] or best.is_within_epoch:
        raise errors.UsageError(
            f"{phase.name} of {original.root} may have been ended by --max_minutes, so its length "
            "may depend on the speed of the machine: it cannot be reproduced."
        )
    deterministic = recorded.run.deterministic or bool(tf.config.list_physical_devices("GPU"))
    return recorded.replace(runs_dir=str(root.parent), run=root.name, deterministic=deterministic)


def _check_ended(
    original: run_folder.RunFolder, phase: phases.Phase, recorded: config_lib.Config
) -> None:
    """Raises UsageError if the training of a phase has not ended: its best weights may change."""
    position = checkpoints.Position(phase)
    epochs = checkpoints.finished_epochs(original.checkpoints(phase))
    if epochs is None:  # deleted to save space
        return
    position.epoch = epochs
    if not stopping.Stopping(phase, recorded, original, position).reason:
        raise errors.UsageError(
            f"{phase.name} of {original.root} has been trained for {epochs} of "
            f"{recorded.training.epochs[phase.index]} epochs: train it to its end first. The best "
            "weights of a whole phase cannot be compared with those of a part of it."
        )


def _check_start(
    original: run_folder.RunFolder,
    phase: phases.Phase,
    recorded: config_lib.Config,
    described: dict[str, Any],
) -> None:
    """Raises UsageError if a phase would now start from other weights or images."""
    best = initial_weights.require_trained(phase, recorded, original)
    if best is not None and best.weights.name not in described["started_from"]:
        raise errors.UsageError(
            f"{phase.name} of {original.root} started from {described['started_from']}, which "
            f"later training has replaced by {best.weights}: it cannot be reproduced."
        )
    is_new = initial_weights.is_new(phase, recorded)
    first = None if is_new else initial_weights.first_sample(best)
    if (first or 0) != described.get("first_sample", 0):
        raise errors.UsageError(
            f"{phase.name} of {original.root} started at another position in the order of the "
            "images than it would now: an earlier version trained it, or the phase before was "
            "given more --epochs since. It cannot be reproduced."
        )


def _check_length(
    reproduced: run_folder.RunFolder,
    phase: phases.Phase,
    settings: config_lib.Config,
    *,
    may_grow: bool,
) -> None:
    """Raises UsageError if an earlier run is longer, or shorter and not to be trained further.

    Settings that differ otherwise are found by the training itself.

    Args:
        reproduced: the earlier run.
        phase: to be compared.
        settings: of the run to reproduce.
        may_grow: whether a shorter run is trained further; False if the user named it.
    """
    if not reproduced.has_begun(phase):
        return
    recorded = recorded_run.settings(reproduced, phase)
    for name in ("epochs", "patience", "max_minutes"):
        found, wanted = (getattr(c.training, name)[phase.index] for c in (recorded, settings))
        if found > wanted or (found < wanted and not may_grow):
            raise errors.UsageError(
                f"{reproduced.root} is another run: its {phase.name} was trained with "
                f"--{name}={found:g}, the one to reproduce with {wanted:g}. Give a new name by "
                "--run."
            )


def _today(
    original: run_folder.RunFolder, phase: phases.Phase, recorded: config_lib.Config
) -> dict[str, Any]:
    """The manifest that a phase would have if it were trained on this machine now.

    Raises:
        UsageError: a file that determines the run has changed.
    """
    with console.captured():  # the child processes report on the data set
        data = dataset_lib.load(recorded)
    weights = class_weights.resolve(recorded, data)
    class_weights.check(original, phase, recorded, data, weights)
    xception = None
    if initial_weights.is_new(phase, recorded) and recorded.network.fusion != "rnn":
        image = keras.Input((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS))
        cnn = cnn_branch.build(image, synchronized_batchnorm=False)
        xception = xception_weights.load_into(cnn, recorded.training.xception_weights)
    devices = devices_lib.describe(recorded.run.logical_cpus)
    return manifest.describe(phase, recorded, data, devices, "", xception)


def _compare(
    original: run_folder.RunFolder,
    reproduced: run_folder.RunFolder,
    todo: Sequence[phases.Phase],
) -> None:
    """Prints both runs' figures; raises RunError unless their weights are identical."""
    different = []
    for phase in todo:
        before, now = (best_weights.find(folder.best, phase) for folder in (original, reproduced))
        identical = before.sha256 == now.sha256
        logging.info(f"{phase.name} original    epoch {before.epoch}  {before.validation}")
        logging.info(f"{phase.name} reproduced  epoch {now.epoch}  {now.validation}")
        logging.info(f"{phase.name}: the weights are {'identical' if identical else 'DIFFERENT'}")
        different += [] if identical else [phase.name]
    if different:
        raise errors.RunError(
            f"{original.root} was not reproduced bit for bit: {', '.join(different)}. Differences "
            "of this machine are listed above; across processors and versions, expect small "
            "differences in the figures."
        )
