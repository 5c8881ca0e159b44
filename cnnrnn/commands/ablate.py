"""`ablate`: comparison of the network with controls, for whether it needs its RNN.

The controls are the CNN alone, the RNN alone, and the CNN with a trained constant gain in place of
the RNN. All see the same images in the same order, by the same flags, with each seed. A training
that is complete is not repeated, and one that was interrupted resumes.
"""

import json
import math
import shutil
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import evaluate, train
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import ablation_report
from cnnrnn.runs import event_files, fixed_settings, identity, manifest, run_folder
from cnnrnn.settings import network as network_settings
from cnnrnn.system import atomic_files, console
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import class_weights, initial_weights

CONTROLS = tuple(ablation_report.NAMES)  # values of --fusion
_PHASES = {"phase1": (phases.PHASE1,), "both": (phases.PHASE1, phases.PHASE2)}
_SAME_RNN = (
    "All seeds start from the same RNN weights (--rnn_weights), whose own training is not counted. "
    "The intervals do not include how much such trainings differ."
)
_RESULT, _HITS = "ablation.json", "hits.csv"


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Trains all networks and writes the comparison into RUN.ablation.

    Raises:
        UsageError: the settings do not allow a comparison, or a network was trained with others.
        UsageError, RunError, Stopped: as in training.
    """
    _check(config)
    root = config.run_dir.with_name(f"{config.run_dir.name}.ablation")
    strategy = devices_lib.strategy(config.run.logical_cpus)
    config = config.replace(precision=devices_lib.precision(config.training.precision))
    data = dataset_lib.load(config)
    todo = _PHASES[config.ablation.trained_phases]
    fusions = (config.network.fusion, *CONTROLS)
    total = config.ablation.seeds * len(fusions)
    trained: dict[str, list[ablation_report.Training]] = {fusion: [] for fusion in fusions}
    manifests = []
    for number in range(total):
        seed, fusion = config.run.seed + number // len(fusions), fusions[number % len(fusions)]
        changes = {"rnn_weights": ""} if fusion in network_settings.WITHOUT_RNN else {}
        own = config.replace(
            seed=seed, fusion=fusion, runs_dir=str(root), run=f"{fusion}-seed{seed}", **changes
        )
        heading = f"training {number + 1} of {total}: {fusion}, seed {seed}"
        logging.info(f"\n{console.styled(heading, 'bold')}")
        trained[fusion].append(_trained(own, todo, data, strategy))
        manifests.append(run_folder.RunFolder(own.run_dir).manifest()[todo[-1].name])
    notes = manifest.mixed(manifests)
    if notes:
        notes = [f"The networks were not all trained by the same program: {'; '.join(notes)}."]
    if config.training.rnn_weights:
        notes.append(_SAME_RNN)
    comparison = ablation_report.Comparison(
        data=f"{data.name}, {len(data.validation):,} validation images",
        trained_phases=" and ".join(phase.name for phase in todo),
        trainings=trained,
        notes=tuple(notes),
    )
    ablation_report.write(root, comparison)
    print(
        f"\n{ablation_report.table(comparison)}\n\n{ablation_report.verdict(comparison)}\n"
        + "".join(f"note: {note}\n" for note in comparison.notes)
        + f"\n  report   {root / 'ablation.html'}\n"
        f"  metrics  {root / 'ablation.json'}, ablation.csv\n"
    )


def _check(config: config_lib.Config) -> None:
    """Raises UsageError if the networks could not be trained, or not by the same budget."""
    if config.network.fusion in CONTROLS:
        raise errors.UsageError(
            f"--fusion={config.network.fusion} is a control of the comparison: give the fusion "
            "that is to be compared with it."
        )
    for name in ("max_minutes", "patience"):
        if any(getattr(config.training, name)):
            raise errors.UsageError(
                f"--{name} would end the networks after different numbers of images: give --epochs "
                "instead."
            )
    if config.training.init_from:
        raise errors.UsageError(
            f"--init_from={config.training.init_from} has the weights of one network, and the "
            "controls are others: ablate trains all from the start."
        )
    initial_weights.check_available(phases.PHASE1, config, run_folder.RunFolder(config.run_dir))


def _trained(
    config: config_lib.Config,
    todo: Sequence[phases.Phase],
    data: dataset_lib.Dataset,
    strategy: tf.distribute.Strategy,
) -> ablation_report.Training:
    """Trains and scores one network, or reads what an earlier call found.

    Raises:
        UsageError: an earlier call trained it with other settings or images.
    """
    folder, phase = run_folder.RunFolder(config.run_dir), todo[-1]
    settings = {
        "images": data.fingerprint,
        "--resize_method": config.data.resize_method,
        "--epochs": [config.training.epochs[each.index] for each in todo],
        "--trained_phases": config.ablation.trained_phases,
        **class_weights.content(config, data, class_weights.resolve(config, data)),
        **{
            f"--{name} ({each.name})": value
            for each in todo
            for name, value in identity.of(each, config.to_json()).items()
        },
    }
    if config.training.rnn_weights:
        settings["RNN weights"] = initial_weights.trained_rnn(config).sha256
    fixed_settings.check(folder.root, settings)
    if not (folder.root / _RESULT).exists():
        _train(config, todo, folder, data, strategy)
    # Weights are not kept: those of twenty networks would take some 50 GB.
    for path in (folder.root / "checkpoints", folder.best):
        shutil.rmtree(path, ignore_errors=True)
    result = json.loads((folder.root / _RESULT).read_text(encoding="utf-8"))
    hits = np.loadtxt(folder.root / _HITS, np.int64, delimiter=",", skiprows=1, ndmin=2)
    points = event_files.scalars(folder.events(phase, "validation"))
    return ablation_report.Training(
        top1=hits[:, 1],
        top5=hits[:, 2],
        parameters=result["parameters"],
        images_per_second=result["images_per_second"] or math.nan,
        curve=[(step, value) for tag, step, value in points if tag == "top1"],
    )


def _train(
    config: config_lib.Config,
    todo: Sequence[phases.Phase],
    folder: run_folder.RunFolder,
    data: dataset_lib.Dataset,
    strategy: tf.distribute.Strategy,
) -> None:
    """Trains and scores one network, and writes what was found into its folder."""
    network = train.train(todo, config, strategy=strategy, is_last=False)
    best, _, predictions = evaluate.score_best(folder, config, data, network, strategy)
    hits = np.stack([np.arange(len(data.validation)), predictions.top1, predictions.top5], axis=1)
    with atomic_files.replacing(folder.root / _HITS) as temporary:
        np.savetxt(temporary, hits, "%d", ",", header="index,top1,top5", comments="")
    rate = event_files.images_per_second(folder.events(todo[-1], "train"))
    result = {
        "epoch": best.epoch,
        "parameters": sum(int(np.prod(w.shape)) for w in network.model.trainable_variables),
        "images_per_second": None if math.isnan(rate) else rate,
    }
    atomic_files.write_json(folder.root / _RESULT, result)
