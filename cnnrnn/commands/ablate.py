"""`ablate`: comparison of the network with controls, for whether it needs its RNN.

The controls are the CNN alone, the RNN alone, and the CNN with a trained constant gain in place of
the RNN. All see the same images in the same order, by the same flags, with each seed. A training
that is complete is not repeated, and one that was interrupted resumes.
"""

import dataclasses
import gc
import json
import math
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import evaluate, train
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import ablation_report, network_comparison
from cnnrnn.runs import event_files, fixed_settings, identity, manifest, run_folder
from cnnrnn.settings import network as network_settings
from cnnrnn.system import atomic_files, console
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import class_weights, initial_weights

CONTROLS = tuple(network_comparison.NAMES)  # values of --fusion
_PHASES = {"phase1": (phases.PHASE1,), "both": (phases.PHASE1, phases.PHASE2)}
_SAME_RNN = (
    "All seeds start from the same RNN weights (--rnn_weights), whose own training is not counted. "
    "The intervals do not include how much such trainings differ."
)
_RESULT, _HITS = "ablation.json", "hits.csv"


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Trains all networks; writes the comparison into RUN.ablation after each seed.

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
    networks = [(own, _settings(own, todo, data)) for own in _networks(config, root)]
    for own, settings in networks:  # a mistake is found before hours of training
        folder = run_folder.RunFolder(own.run_dir)
        fixed_settings.check(folder, settings, is_complete=(folder.root / _RESULT).exists())
    trained: dict[str, list[network_comparison.Training]] = {}
    manifests = []
    for number, (own, settings) in enumerate(networks, start=1):
        fusion = own.network.fusion
        heading = f"training {number} of {len(networks)}: {fusion}, seed {own.run.seed}"
        logging.info(f"\n{console.styled(heading, 'bold')}")
        trained.setdefault(fusion, []).append(_trained(own, settings, todo, data, strategy))
        manifests.append(run_folder.RunFolder(own.run_dir).manifest())
        if number % (1 + len(CONTROLS)) == 0:  # a comparison of the seeds so far
            comparison = _comparison(config, todo, data, trained, manifests)
            ablation_report.write(root, comparison)
    console.print_summary(
        f"\n{ablation_report.table(comparison)}\n\n{network_comparison.verdict(comparison)}\n"
        + "".join(f"note: {note}\n" for note in comparison.notes)
        + f"\n  report   {root / 'ablation.html'}\n"
        f"  metrics  {root / 'ablation.json'}, ablation.csv\n"
    )


def _comparison(
    config: config_lib.Config,
    todo: Sequence[phases.Phase],
    data: dataset_lib.Dataset,
    trained: dict[str, list[network_comparison.Training]],
    manifests: Sequence[dict[str, Any]],
) -> network_comparison.Comparison:
    """The trained networks, with what a reader of their figures should know."""
    mixed = {
        difference
        for phase in todo
        for difference in manifest.mixed([by_phase[phase.name] for by_phase in manifests])
    }
    notes = []
    if mixed:
        notes.append(
            "The networks were trained by different versions or on different machines: "
            f"{'; '.join(sorted(mixed))}."
        )
    if config.training.rnn_weights:
        notes.append(_SAME_RNN)
        notes += initial_weights.other_images(phases.PHASE1, config, data)
    comparison = network_comparison.Comparison(
        data=f"{data.name}, {len(data.validation):,} validation images",
        trained_phases=" and ".join(phase.name for phase in todo),
        trainings=trained,
        notes=tuple(notes),
    )
    notes += network_comparison.remarks(comparison)
    return dataclasses.replace(comparison, notes=tuple(notes))


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
                f"--{name} would end the networks after different numbers of images: leave it out, "
                f"or give --{name}=0 after the flagfile."
            )
    if config.training.init_from:
        raise errors.UsageError(
            "--init_from cannot be combined with ablate: the weights of "
            f"{config.training.init_from} fit one of the networks only, and all must start alike. "
            "Leave it out."
        )
    initial_weights.require_trained(phases.PHASE1, config, run_folder.RunFolder(config.run_dir))


def _networks(config: config_lib.Config, root: pathlib.Path) -> list[config_lib.Config]:
    """The settings of all networks, seed by seed; the one to be compared comes first."""
    networks = []
    for number in range(config.ablation.seeds):
        for fusion in (config.network.fusion, *CONTROLS):
            seed = config.run.seed + number
            changes = {"rnn_weights": ""} if fusion in network_settings.WITHOUT_RNN else {}
            networks.append(
                config.replace(
                    seed=seed, fusion=fusion, runs_dir=str(root), run=f"{fusion}-seed{seed}",
                    **changes,
                )
            )  # fmt: skip
    return networks


def _settings(
    config: config_lib.Config, todo: Sequence[phases.Phase], data: dataset_lib.Dataset
) -> dict[str, Any]:
    """The settings that a network must be trained with from its start to its end."""
    settings = {
        "images": data.fingerprint,
        "--trained_phases": config.ablation.trained_phases,
        "--epochs": [config.training.epochs[each.index] for each in todo],
        "--resize_method": config.data.resize_method,
        **{
            f"--{name} ({each.name})": value
            for each in todo
            for name, value in identity.of(each, config.to_json()).items()
            if name != "epochs"
        },
        **class_weights.content(config, data, class_weights.resolve(config, data)),
    }
    if config.training.rnn_weights:
        settings["RNN weights"] = initial_weights.trained_rnn(config).sha256
    return settings


def _trained(
    config: config_lib.Config,
    settings: dict[str, Any],
    todo: Sequence[phases.Phase],
    data: dataset_lib.Dataset,
    strategy: tf.distribute.Strategy,
) -> network_comparison.Training:
    """Trains and scores one network, or reads what an earlier call found."""
    folder, phase = run_folder.RunFolder(config.run_dir), todo[-1]
    if not (folder.root / _RESULT).exists():
        fixed_settings.record(folder, settings)
        _train(config, todo, folder, data, strategy)
        gc.collect()  # else the next network is trained while the memory of this one is in use
    # Weights are not kept: those of twenty networks would take some 50 GB.
    for path in (folder.root / "checkpoints", folder.best):
        shutil.rmtree(path, ignore_errors=True)
    result = json.loads((folder.root / _RESULT).read_text(encoding="utf-8"))
    hits = np.loadtxt(folder.root / _HITS, np.int64, delimiter=",", skiprows=1, ndmin=2)
    points = event_files.scalars(folder.events(phase, "validation"))
    return network_comparison.Training(
        top1=hits[:, 1],
        top5=hits[:, 2],
        parameters=result["parameters"],
        images_per_second=result["images_per_second"] or math.nan,
        curve=[(step, value) for tag, step, value in points if tag == "top1"],
        best_is_last=result["epoch"] == config.training.epochs[phase.index],
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
    if best.phase != todo[-1].name:
        raise errors.RunError(
            f"{folder.root} has no best weights of {todo[-1].name}: they could not be saved. "
            "Remove the folder and start again."
        )
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
