"""Initial weights of a phase that has no checkpoint of its own."""

import dataclasses

from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import network as network_lib
from cnnrnn.models import xception_weights
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.settings import network as network_settings
from cnnrnn.settings import paths

_NO_CHECKPOINT_YET = ".no-checkpoint-yet"


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Where the weights came from, for the manifest.

    Attributes:
        description: one line.
        xception: the source of the CNN's pretrained weights; None if all are of a run, or without
            a CNN.
        first_sample: position in the order of the images at which the phase starts.
    """

    description: str
    xception: xception_weights.WeightsSource | None = None
    first_sample: int = 0


def load(
    phase: phases.Phase,
    config: config_lib.Config,
    folder: run_folder.RunFolder,
    network: network_lib.Network,
    class_names: tuple[str, ...],
) -> InitialWeights:
    """Loads the initial weights of a phase.

    --init_from names a run whose best weights are loaded. Otherwise phase 1 starts from pretrained
    weights of the CNN, those of the run of --rnn_weights in the RNN if it is given, and random ones
    of the rest; phase 2 from the best weights of phase 1.

    Raises:
        UsageError: there are no such weights, or training from them would lose trained ones.
        RunError: a file is damaged.
    """
    check_nothing_is_lost(folder, phase)
    return load_for_trial(phase, config, folder, network, class_names)


def load_for_trial(
    phase: phases.Phase,
    config: config_lib.Config,
    folder: run_folder.RunFolder,
    network: network_lib.Network,
    class_names: tuple[str, ...],
) -> InitialWeights:
    """Like `load`, for training of which nothing is saved in the run folder.

    Raises:
        UsageError: there are no such weights.
        RunError: a file is damaged.
    """
    if is_new(phase, config):
        source, description = None, "no CNN"
        if network.uses_cnn:
            source = xception_weights.load_into(network.cnn, config.training.xception_weights)
            description = source.description
        if config.training.rnn_weights:
            best = trained_rnn(config)
            best_weights.load_part(best, network.rnn)
            description += f"; RNN: {_described(best)}"
            logging.info(f"{phase.name}: the RNN starts from {_described(best)}")
        return InitialWeights(description, source)
    best = _starting_point(config, folder)
    best_weights.load(best, network.model, class_names)
    logging.info(f"{phase.name}: starts from {_described(best)}")
    first = first_sample(best)
    if first is None:
        logging.info(
            f"note: the records of {best.weights.parent.parent} do not tell how many images "
            f"{best.phase} was trained on, so {phase.name} starts with the first ones again."
        )
    return InitialWeights(_described(best), first_sample=first or 0)


def is_new(phase: phases.Phase, config: config_lib.Config) -> bool:
    """Whether a phase trains a new network, not one that another phase has trained.

    Its CNN may be pretrained, and its RNN be that of a run: it starts at the first sample.
    """
    return phase is phases.PHASE1 and not config.training.init_from


def first_sample(best: best_weights.Best) -> int | None:
    """The position in the order of the images at which a phase starts from weights of a run.

    It is after all samples of the phase that trained them, by its settings: the phase may have
    ended earlier, but networks of a comparison, whose best epochs differ, are to see the same
    images in their next phase. None if the records of the run do not tell.
    """
    folder, phase = run_folder.RunFolder(best.weights.parent.parent), phases.BY_NAME[best.phase]
    try:
        config, recorded = folder.config()[phase.name], folder.manifest()[phase.name]
        images = recorded["dataset"]["training_examples"]
        schedule = phases.schedule(phase, config_lib.from_json(config), images)
        return recorded.get("first_sample", 0) + schedule.total_steps * schedule.batch_size
    except (LookupError, TypeError, ValueError):
        return None


def other_images(
    phase: phases.Phase, config: config_lib.Config, data: dataset_lib.Dataset
) -> list[str]:
    """Sentences on weights that a phase starts from and that were trained on other images.

    The validation images may have been among them, e.g. with another --fold of one data set.
    """
    name = "init_from" if config.training.init_from else "rnn_weights"
    source = getattr(config.training, name)
    if not source or (name == "rnn_weights" and phase is not phases.PHASE1):
        return []
    folder = run_folder.RunFolder(paths.expanded(source))
    if folder.config().get("data", {}).get("fingerprint", data.fingerprint) == data.fingerprint:
        return []
    return [
        f"--{name}={source} was trained on other images, or on another split of these. If it was "
        "trained on validation images of this run, the validation accuracy is too optimistic."
    ]


def _described(best: best_weights.Best) -> str:
    return f"{best.weights} (epoch {best.epoch} of {best.phase})"


def require_trained(
    phase: phases.Phase, config: config_lib.Config, folder: run_folder.RunFolder
) -> best_weights.Best | None:
    """The best weights of the run that a phase starts from; None if it starts from none.

    Raises:
        UsageError: it needs them, and there are none.
    """
    if config.training.init_from or phase is phases.PHASE2:
        return _starting_point(config, folder)
    return trained_rnn(config) if config.training.rnn_weights else None


def _starting_point(config: config_lib.Config, folder: run_folder.RunFolder) -> best_weights.Best:
    """The best weights of --init_from, or of the run's phase 1.

    Raises:
        UsageError: there are none, or they are of another variant of the network.
    """
    if config.training.init_from:
        folder = run_folder.RunFolder(paths.expanded(config.training.init_from))
        best = best_weights.latest(folder.best)
    else:
        best = require_phase1(folder)
    trained = folder.variant(best.phase)
    asked = network_lib.Variant.of(dataclasses.asdict(config.network))
    if trained != asked:
        flags = " ".join(f"--{name}={value}" for name, value in vars(trained).items())
        raise errors.UsageError(
            f"{best.weights} was trained with {flags}: give these flags, too. With other ones the "
            "weights do not fit."
        )
    return best


def trained_rnn(config: config_lib.Config) -> best_weights.Best:
    """The best weights of the run of --rnn_weights.

    Raises:
        UsageError: there are none, or their RNN branch is another one.
    """
    folder = run_folder.RunFolder(paths.expanded(config.training.rnn_weights))
    best = best_weights.latest(folder.best)
    trained = folder.variant(best.phase)
    if trained.fusion in network_settings.WITHOUT_RNN:
        raise errors.UsageError(
            f"--rnn_weights={config.training.rnn_weights} was trained with "
            f"--fusion={trained.fusion}, which leaves out the RNN: name a run with an RNN, e.g. "
            "with --fusion=rnn."
        )
    asked = network_lib.Variant.of(dataclasses.asdict(config.network))
    if dataclasses.replace(trained, fusion=asked.fusion) != asked:
        raise errors.UsageError(
            f"the RNN of --rnn_weights={config.training.rnn_weights} was trained with "
            f"--rnn_input={trained.rnn_input} --rnn_layer_norm={trained.rnn_layer_norm}: give "
            "these flags, too. With other ones the weights do not fit."
        )
    return best


def require_phase1(folder: run_folder.RunFolder) -> best_weights.Best:
    """The best weights of a run's phase 1.

    Raises:
        UsageError: phase 1 has not been trained.
    """
    best = best_weights.find(folder.best, phases.PHASE1)
    if best is None:
        raise errors.UsageError(
            f"phase 2 starts from phase 1's best weights, and {folder.root} has none. "
            "Run phase1 with the same flags first, or give --init_from=RUN_FOLDER."
        )
    return best


def warn_of_newer_phase1(folder: run_folder.RunFolder) -> None:
    """Reports that phase 1 has found better weights since phase 2 started from it."""
    best = best_weights.find(folder.best, phases.PHASE1)
    name = phases.PHASE2.name
    started_from = folder.manifest().get(name, {}).get("started_from", "")
    if best is not None and started_from and best.weights.name not in started_from:
        logging.info(
            f"note: phase 1 has found better weights, {best.weights.name}, since {name} started "
            f"from {started_from}. To start again from the new ones, delete "
            f"{folder.checkpoints(phases.PHASE2)} and {folder.best / name}.json."
        )


def mark_start(folder: run_folder.RunFolder, phase: phases.Phase) -> None:
    """Marks a phase that has started and has no checkpoint yet."""
    marker = folder.checkpoints(phase) / _NO_CHECKPOINT_YET
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def mark_checkpoint(folder: run_folder.RunFolder, phase: phases.Phase) -> None:
    """Removes that mark once a phase has a checkpoint."""
    if folder.has_checkpoint(phase):
        (folder.checkpoints(phase) / _NO_CHECKPOINT_YET).unlink(missing_ok=True)


def check_nothing_is_lost(folder: run_folder.RunFolder, phase: phases.Phase) -> None:
    """Raises UsageError where training from the start would overwrite trained weights.

    To be called for a phase without a checkpoint. A run killed in its first epoch, after its best
    weights and before its first checkpoint, has nothing to lose: it still has the mark.
    """
    best = best_weights.find(folder.best, phase)
    marker = folder.checkpoints(phase) / _NO_CHECKPOINT_YET
    if best is None or (best.epoch == 1 and marker.exists()):
        return
    raise errors.UsageError(
        f"{best.weights} exists, and there is no checkpoint to continue from: training "
        f"{phase.name} from the start would overwrite it. Give another --run=NAME, or delete "
        f"{phase.name}.json beside it."
    )
