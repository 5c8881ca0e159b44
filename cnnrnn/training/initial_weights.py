"""What a phase starts from: its own checkpoint, another run's weights, or ImageNet's."""

import pathlib

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import network as network_lib
from cnnrnn.models import xception_weights
from cnnrnn.runs import best_weights, checkpoints, manifest, run_folder


def restore(
    phase: phases.Phase,
    config: config_lib.Config,
    folder: run_folder.RunFolder,
    data: dataset_lib.Dataset,
    network: network_lib.Network,
    saver: checkpoints.Checkpoints,
    position: checkpoints.Position,
    devices: str,
) -> None:
    """Fills the network and the position, by this precedence:

    1. this phase's own checkpoint in this run;
    2. the best weights of --init_from;
    3. phase 1: ImageNet weights for the CNN, random ones for the rest;
       phase 2: the best weights of this run's phase 1.

    Records the phase's settings once nothing stands against them any more.

    Raises:
        UsageError: there is nothing to start from, or starting would lose weights.
        RunError: what there is cannot be read.
    """
    weights = None
    own = saver.restore()
    if own is not None:
        _note_other_phase1(phase, config, folder)
        folder.record(phase, config, data)
        print(
            f"{phase.name}: goes on from {own}, {position.epoch} epochs and "
            f"{position.step} steps done"
        )
        return
    _check_nothing_is_lost(folder, phase)
    if config.training.init_from or phase is phases.PHASE2:
        if config.training.init_from:
            other = run_folder.RunFolder(pathlib.Path(config.training.init_from).expanduser())
            best = best_weights.latest(other.best)
        else:
            best = require_phase1(folder)
        best_weights.load(best, network.model, data.class_names)
        started_from = f"{best.weights} (epoch {best.epoch} of {best.phase})"
    else:
        weights = xception_weights.load_into(network.cnn, config.training.xception_weights)
        started_from = weights.description
    if weights is None:
        print(f"{phase.name}: starts from {started_from}")
    folder.record(phase, config, data)
    folder.write_manifest(
        phase, manifest.describe(phase, config, data, devices, started_from, weights)
    )


def require_phase1(folder: run_folder.RunFolder) -> best_weights.Best:
    """The best weights of a run's phase 1.

    Raises:
        UsageError: there are none.
    """
    best = best_weights.find(folder.best, phases.PHASE1)
    if best is None:
        raise errors.UsageError(
            f"phase 2 starts from phase 1's best weights, and there are none in {folder.root}. "
            "Run phase1 with the same flags first, or give --init_from=RUN_FOLDER."
        )
    return best


def _check_nothing_is_lost(folder: run_folder.RunFolder, phase: phases.Phase) -> None:
    """Raises UsageError where training anew would replace weights that took epochs to find."""
    best = best_weights.find(folder.best, phase)
    # Those of the first epoch can be there without a checkpoint: it is written after them.
    if best is not None and best.epoch > 1:
        raise errors.UsageError(
            f"{best.weights} is there, but no checkpoint to go on from: training {phase.name} "
            f"anew would replace it. Give another --run=NAME, or remove {phase.name}.json "
            "beside it."
        )


def _note_other_phase1(
    phase: phases.Phase, config: config_lib.Config, folder: run_folder.RunFolder
) -> None:
    """Says so where phase 1 has found better weights since phase 2 started from it."""
    if phase is phases.PHASE1 or config.training.init_from:
        return
    best = best_weights.find(folder.best, phases.PHASE1)
    started_from = folder.manifest().get(phase.name, {}).get("started_from", "")
    if best is not None and best.weights.name not in started_from:
        print(
            f"note: phase 1 has found better weights since: {best.weights.name}, and {phase.name} "
            f"started from {started_from}. To start it from the new ones, run phase2 with "
            f"--init_from={folder.root} --run=NAME."
        )
