"""`ablate`: does the network need its RNN? Trains it and controls, and compares them.

The controls are the CNN alone, the RNN alone, and the CNN with a trained constant gain in place of
the RNN. All see the same images in the same order, by the same flags, with each seed. A training
that is complete is not repeated, and one that was interrupted resumes.
"""

import json
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
from cnnrnn.runs import event_files, identity, run_folder
from cnnrnn.settings import network as network_settings
from cnnrnn.system import atomic_files, console
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import class_weights

CONTROLS = tuple(ablation_report.NAMES)  # values of --fusion
_PHASES = {"phase1": (phases.PHASE1,), "both": (phases.PHASE1, phases.PHASE2)}
# Settings that earlier versions did not record, with the default that they usually had.
_ADDED = {"resize_method": "bilinear", "patience": [0, 0]}
_RESULT, _HITS = "ablation.json", "hits.csv"


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Trains all networks and writes the comparison into RUN.ablation.

    Raises:
        UsageError: --fusion is a control itself, --max_minutes would end the networks after
            different numbers of steps, or a network was trained with other settings.
        UsageError, RunError, Stopped: as in training.
    """
    if config.network.fusion in CONTROLS:
        raise errors.UsageError(
            f"--fusion={config.network.fusion} is a control of the comparison: give the fusion "
            "that is to be compared with it."
        )
    if any(config.training.max_minutes):
        raise errors.UsageError(
            "--max_minutes would end the slower networks after fewer images: give --epochs instead."
        )
    root = config.run_dir.with_name(f"{config.run_dir.name}.ablation")
    strategy = devices_lib.strategy(config.run.logical_cpus)
    config = config.replace(precision=devices_lib.precision(config.training.precision))
    data = dataset_lib.load(config)
    todo = _PHASES[config.ablation.trained_phases]
    fusions = (config.network.fusion, *CONTROLS)
    total = config.ablation.seeds * len(fusions)
    trained: dict[str, list[ablation_report.Training]] = {fusion: [] for fusion in fusions}
    for number in range(total):
        seed, fusion = config.run.seed + number // len(fusions), fusions[number % len(fusions)]
        changes = {"rnn_weights": ""} if fusion in network_settings.WITHOUT_RNN else {}
        own = config.replace(
            seed=seed, fusion=fusion, runs_dir=str(root), run=f"{fusion}-seed{seed}", **changes
        )
        heading = f"training {number + 1} of {total}: {fusion}, seed {seed}"
        logging.info(f"\n{console.styled(heading, 'bold')}")
        trained[fusion].append(_trained(own, todo, data, strategy))
    comparison = ablation_report.Comparison(
        data=f"{data.name}, {len(data.validation):,} validation images",
        trained_phases=" and ".join(phase.name for phase in todo),
        trainings=trained,
    )
    ablation_report.write(root, comparison)
    print(
        f"\n{ablation_report.table(comparison)}\n\n{ablation_report.verdict(comparison)}\n\n"
        f"  report   {root / 'ablation.html'}\n"
        f"  figures  {root / 'ablation.json'}, ablation.csv\n"
    )


def _trained(
    config: config_lib.Config,
    todo: Sequence[phases.Phase],
    data: dataset_lib.Dataset,
    strategy: tf.distribute.Strategy,
) -> ablation_report.Training:
    """Trains and scores one network, or reads what an earlier call found.

    Its weights are not kept: those of twenty networks would take some 50 GB.
    """
    folder, phase = run_folder.RunFolder(config.run_dir), todo[-1]
    asked = {
        "fingerprint": data.fingerprint,
        "resize_method": config.data.resize_method,
        "epochs": list(config.training.epochs),
        "patience": list(config.training.patience),
        **class_weights.content(config, data, class_weights.resolve(config, data)),
        **{each.name: identity.of(each, config.to_json()) for each in todo},
    }
    if (folder.root / _RESULT).exists():
        return _read(folder, phase, asked)
    network = train.train(todo, config, strategy=strategy, is_last=False)
    best, _, predictions = evaluate.score_best(folder, config, data, network, strategy)
    hits = np.stack([np.arange(len(data.validation)), predictions.top1, predictions.top5], axis=1)
    with atomic_files.replacing(folder.root / _HITS) as temporary:
        np.savetxt(temporary, hits, "%d", ",", header="index,top1,top5", comments="")
    rates = [
        value
        for tag, _, value in event_files.scalars(folder.events(phase, "train"))
        if tag == "images_per_second"
    ]
    result = {
        "settings": asked,
        "epoch": best.epoch,
        "parameters": sum(int(np.prod(w.shape)) for w in network.model.trainable_variables),
        "images_per_second": max(rates),
    }
    atomic_files.write_json(folder.root / _RESULT, result)
    for path in (folder.root / "checkpoints", folder.best):
        shutil.rmtree(path)
    return _read(folder, phase, asked)


def _read(
    folder: run_folder.RunFolder, phase: phases.Phase, asked: dict
) -> ablation_report.Training:
    """What was found about a network.

    Args:
        folder: of its run.
        phase: the last one that was trained.
        asked: the settings and images that it should have been trained with.

    Raises:
        UsageError: it was trained with other ones.
    """
    result = json.loads((folder.root / _RESULT).read_text(encoding="utf-8"))
    if _ADDED | result["settings"] != asked:
        raise errors.UsageError(
            f"{folder.root} was trained with other settings or images: give those, or another "
            "--run=NAME for this comparison."
        )
    hits = np.loadtxt(folder.root / _HITS, np.int64, delimiter=",", skiprows=1, ndmin=2)
    points = event_files.scalars(folder.events(phase, "validation"))
    return ablation_report.Training(
        top1=hits[:, 1],
        top5=hits[:, 2],
        parameters=result["parameters"],
        images_per_second=result["images_per_second"],
        curve=[(step, value) for tag, step, value in points if tag == "top1"],
    )
