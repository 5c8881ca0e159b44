"""`evaluate`: scores a run's best weights on the validation split, or on test images."""

import json
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.evaluation import report
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.system import console
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import cost, phase_features, steps


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Evaluates the best weights of the last trained phase of --run.

    Raises:
        UsageError: the run has no trained weights, or was trained on other data, or the test
            images have other classes.
    """
    folder = run_folder.RunFolder(config.run_dir, config.evaluation_name)
    best = best_weights.latest(folder.best)
    with folder.opened():
        strategy = devices_lib.strategy(config.run.logical_cpus)
        config = config.replace(precision=devices_lib.precision(config.training.precision))
        data = dataset_lib.load(config)
        folder.check_data(config, data)
        if config.evaluation.test_dataset:
            data = dataset_lib.load_test(config, data)
            _check_not_another(folder, data)
        precision = config.training.precision
        with strategy.scope():
            network = network_lib.build(
                len(data.class_names),
                precision=precision,
                lstm_kernel=lstm.choose(config.training.lstm_kernel, precision),
                variant=folder.variant(best.phase),
            )
        evaluate(folder, config, data, network, strategy)


def _check_not_another(folder: run_folder.RunFolder, data: dataset_lib.Dataset) -> None:
    """Raises UsageError if the results of other test images would be overwritten."""
    try:
        found = json.loads(folder.results.read_text(encoding="utf-8"))
        name, fingerprint = found["dataset"], found["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # there are none, or they are damaged
    same_place = pathlib.Path(name).resolve() == pathlib.Path(data.name).resolve()
    if not same_place and fingerprint != data.fingerprint:
        raise errors.UsageError(
            f"{folder.evaluation} holds the evaluation of {name}: rename or remove it first."
        )


def evaluate(
    folder: run_folder.RunFolder,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    network: network_lib.Network,
    strategy: tf.distribute.Strategy,
) -> None:
    """Scores the validation images, writes the report into the run folder and prints a summary.

    Args:
        folder: of the run.
        config: precision already resolved.
        data: the run's data set; `validation` is what is scored.
        network: its weights are replaced by the run's best.
        strategy: the strategy that `network` was built in.

    Raises:
        RunError: the run's best weights or its manifest are damaged, or an image cannot be decoded.
    """
    if workers_lib.Workers(strategy).is_chief:
        folder.manifest()  # part of the report: if damaged, fail before the pass, not after it
    best, preprocessing, predictions = score_best(
        folder, config, data, network, strategy, branches=True
    )
    if best is None:
        return
    macro = report.write(folder, preprocessing, data, best, network, predictions)
    weights = best_weights.describe(best, folder.manifest())
    console.print_summary(
        f"\n{weights[0].upper()}{weights[1:]} on {len(data.validation):,} {data.evaluated} "
        "images:\n"
        f"  {predictions.means}   (chance: top-1 {1 / len(data.class_names):.2%})\n"
        f"  macro, over {macro.classes} classes: {macro}\n"
        f"  report     {folder.evaluation / 'report.html'}\n"
        f"  metrics    {folder.results}\n"
        f"  per label  {folder.evaluation / 'per_label.tsv'}\n"
        f"  tables     {folder.evaluation / '*.csv'}\n"
        f"  charts     {folder.evaluation / 'top1_by_label.png'}, top5_by_label.png\n"
    )
    if data.evaluated != "validation":  # not the split of the recorded figures
        return
    phase1 = best_weights.find(folder.best, phases.PHASE1)
    if phase1 and phase1.phase != best.phase and phase1.validation.top1 > best.validation.top1:
        trained = folder.config().get(best.phase, {}).get("phase2_batchnorm")
        frozen = "" if trained == "frozen" else "--phase2_batchnorm=frozen and "
        logging.info(
            f"note: in training, phase 1 alone reached {phase1.validation.top1:.2%} top-1 and "
            f"phase 2 {best.validation.top1:.2%}. With few images, try {frozen}more epochs in "
            "phase 2 (under another --run).\n"
        )


def score_best(
    folder: run_folder.RunFolder,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    network: network_lib.Network,
    strategy: tf.distribute.Strategy,
    *,
    branches: bool = False,
) -> tuple[best_weights.Best | None, views_lib.Preprocessing, predictions_lib.Predictions]:
    """Scores the validation images by the best weights of the last trained phase.

    Args:
        folder, config, data, network, strategy: see `evaluate`.
        branches: whether the predictions hold the outputs of the branches.

    Returns:
        The record of the weights, None for a worker that is not the chief; the preprocessing; the
        predictions.

    Raises:
        RunError: the weights are damaged, or an image cannot be decoded.
    """
    workers = workers_lib.Workers(strategy)
    best, phase, image_size = None, 0, 0
    if workers.is_chief:
        best = best_weights.latest(folder.best)
        best_weights.load(best, network.model, data.class_names)
        phase = phases.BY_NAME[best.phase].index
        image_size = folder.eval_image_size(best.phase, config.data.eval_image_size)
    workers.broadcast(network.model.weights)
    phase, image_size = workers.of_chief(phase), workers.of_chief(image_size)
    replicas = strategy.num_replicas_in_sync
    batch_size = cost.shared_evenly(config.training.batch_size[0], replicas)
    preprocessing = views_lib.Preprocessing(config.data.resize_method, image_size)
    features = phase_features.PhaseFeatures(
        list(phases.BY_NAME.values())[phase], config, network, strategy
    ).of_validation(data.validation, preprocessing, passes=0)
    evaluator = predictions_lib.Evaluator(
        steps.make_eval_step(network, strategy, branches=branches),
        strategy,
        batch_size,
        preprocessing,
    )
    predictions = evaluator.predict(data.validation, label="evaluation", features=features)
    return best, preprocessing, predictions
