"""`average RUN`: a run whose weights lie between those of phase 1 and phase 2 of another.

Fine-tuning gains accuracy on the images that it sees and loses some of the robustness of the
pretrained network. The straight line between the weights before and after it often has a point that
is better than both ends (WiSE-FT, Wortsman et al., arXiv 2109.01903).
"""

import dataclasses
import shlex
from collections.abc import Sequence

import numpy as np
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, metrics, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, manifest, recorded_run, run_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import text as text_lib
from cnnrnn.training import cost, steps, train_state

_TRAINED = (phases.PHASE1, phases.PHASE2)
_PLACES = ("dataset", "archive", "data_dir")  # the images may have been moved


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Writes (1 - alpha) x the best weights of phase 1 + alpha x those of phase 2 as a run.

    Its settings are those that RUN recorded, except for `dataset`, `archive` and `data_dir` if they
    are given.

    Args:
        arguments: RUN, a run's folder or its name in --runs_dir.
        config: `alpha`; `run`, the name of the new run, by default RUN-average-ALPHA; and
            `runs_dir`, its folder, by default that of RUN.

    Raises:
        UsageError: there is no such run, it lacks a phase, its images or classes have changed, the
            new run has been trained, or a flag gives other images than those of RUN.
        RunError: a file is damaged or cannot be written, or an image cannot be decoded.
    """
    original = recorded_run.find(arguments, "average RUN --alpha=0.5", config)
    ends = [_require(original, phase) for phase in _TRAINED]
    settings = recorded_run.settings(original, phases.PHASE2)
    started_from = recorded_run.record(original, phases.PHASE2, "manifest.json")["started_from"]
    if settings.training.init_from or ends[0].weights.name not in started_from:
        raise errors.UsageError(
            f"phase 2 of {original.root} started from {started_from}, not from the best weights of "
            f"the phase 1 beside it, {ends[0].weights.name}: only a phase 2 that "
            "started from them can be averaged with them."
        )
    _check_data_flags(config, settings)
    alpha, default = config.averaging.alpha, config_lib.Config()
    if config.data.dataset != default.data.dataset:  # the images have been moved
        settings = settings.replace(dataset=config.data.dataset, archive=config.data.archive)
    if config.data.data_dir:
        settings = settings.replace(data_dir=config.data.data_dir)
    beside = config.run.runs_dir == default.run.runs_dir
    settings = settings.replace(
        run=config.run.name or f"{original.root.name}-average-{alpha:g}",
        runs_dir=str(original.root.parent) if beside else config.run.runs_dir,
        alpha=alpha,
    )
    folder = run_folder.RunFolder(settings.run_dir)
    if any(folder.has_begun(phase) for phase in _TRAINED):
        raise errors.UsageError(
            f"{folder.root} is a run with trained weights, which are not overwritten: give another "
            "--run=NAME."
        )
    with folder.opened():
        average = _average(original, ends, folder, settings)
    _report(ends, average, settings)


def _check_data_flags(config: config_lib.Config, recorded: config_lib.Config) -> None:
    """Raises UsageError for a flag on the images that differs from what the run recorded.

    It would be ignored: the average is scored as the run was.
    """
    for field in dataclasses.fields(config.data):
        given, used = (getattr(data, field.name) for data in (config.data, recorded.data))
        if field.name not in _PLACES and given not in (field.default, used):
            how = f"with --{field.name}={used}" if used else "without it"
            raise errors.UsageError(
                f"--{field.name}={given} cannot be combined with average, which takes the images "
                f"as its run did, {how}: leave it out."
            )


def _require(folder: run_folder.RunFolder, phase: phases.Phase) -> best_weights.Best:
    """The best weights of a phase of a run; raises UsageError if there are none."""
    best = best_weights.find(folder.best, phase)
    if best is None:
        raise errors.UsageError(
            f"{folder.root} has no best weights of {phase.name}, and the average is of both "
            "phases: train phase 1, then phase 2, in the same run."
        )
    return best


def _average(
    original: run_folder.RunFolder,
    ends: Sequence[best_weights.Best],
    folder: run_folder.RunFolder,
    settings: config_lib.Config,
) -> metrics.Means:
    """Computes the average, validates it as training does, and writes the run.

    Args:
        original: the run.
        ends: its best weights of phase 1 and of phase 2.
        folder: of the new run.
        settings: the recorded settings, with the name of the new run and alpha.

    Returns:
        Its validation figures.
    """
    strategy = devices_lib.strategy(settings.run.logical_cpus)
    data = dataset_lib.load(settings)
    original.check_data(settings, data)
    batch_size = cost.shared_evenly(
        phases.schedule(phases.PHASE2, settings, len(data.train)).batch_size,
        strategy.num_replicas_in_sync,
    )
    logging.info("network: building it, about ten seconds")
    # Not the LSTM kernel of training, which may have run on other devices.
    network = train_state.build_network(
        len(data.class_names), settings.replace(lstm_kernel="auto"), strategy
    )
    weights = []
    for best in ends:
        best_weights.load(best, network.model, data.class_names)
        weights.append(network.model.get_weights())
    network.model.set_weights(interpolated(*weights, settings.averaging.alpha))
    evaluator = predictions_lib.Evaluator(
        steps.make_eval_step(network, strategy),
        strategy,
        batch_size,
        views_lib.Preprocessing(
            settings.data.resize_method, original.eval_image_size(phases.PHASE2.name)
        ),
    )
    means = evaluator.predict(data.validation, label="validation of the average").means
    folder.record(phases.PHASE2, settings, data)
    described = manifest.describe(
        phases.PHASE2,
        settings,
        data,
        devices_lib.describe(settings.run.logical_cpus),
        f"the best weights of both phases of {original.root}",
        None,
    )
    described["first_sample"] = recorded_run.record(original, phases.PHASE2, "manifest.json").get(
        "first_sample", 0
    )
    described["average"] = {
        "run": str(original.root),
        "alpha": settings.averaging.alpha,
        **{f"{best.phase}_weights": best.weights.name for best in ends},
        **{f"{best.phase}_sha256": best.sha256 for best in ends},
    }
    folder.write_manifest(phases.PHASE2, described)
    # Last: a folder without best weights is not a trained run, and the command can be repeated.
    best_weights.save(
        folder.best, phases.PHASE2, network.model, data.class_names, ends[1].epoch, means
    )
    return means


def interpolated(
    before: Sequence[np.ndarray], after: Sequence[np.ndarray], alpha: float
) -> list[np.ndarray]:
    """(1 - alpha) x before + alpha x after, array by array; 0 and 1 return one of the two."""
    if alpha in (0, 1):
        return list(after if alpha else before)
    # In float64, so that weights that are equal in both stay as they are.
    return [
        ((1 - alpha) * a.astype(np.float64) + alpha * b.astype(np.float64)).astype(a.dtype)
        for a, b in zip(before, after, strict=True)
    ]


def _report(
    ends: Sequence[best_weights.Best], average: metrics.Means, settings: config_lib.Config
) -> None:
    """Prints the validation figures of both phases and of the average, and the next command."""
    lines = [(f"{best.phase} (epoch {best.epoch})", best.validation) for best in ends]
    lines.append((f"average, alpha {settings.averaging.alpha:g}", average))
    table = "\n".join(f"  {name:<22}{means}" for name, means in lines)
    flags = [
        flag for flag in settings.to_flags() if not flag.startswith(("--alpha=", "--dataset="))
    ]
    command = shlex.join(["evaluate", f"--dataset={settings.data.dataset}", *flags])
    logging.info(
        f"\nValidation:\n{table}\n"
        f"  results   {settings.run_dir}\n"
        f"  next      {text_lib.program()} {command}\n"
    )
