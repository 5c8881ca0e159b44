"""Evaluation of a run's best weights on the whole validation split."""

from collections.abc import Sequence

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.evaluation import report
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import feature_cache, steps


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Evaluates the best weights of the last trained phase of --run.

    Raises:
        UsageError: the run has no trained weights, or was made with other data.
    """
    folder = run_folder.RunFolder(config.run_dir)
    best_weights.latest(folder.best)
    with folder.opened():
        _run(config, folder)


def _run(config: config_lib.Config, folder: run_folder.RunFolder) -> None:
    strategy = devices_lib.strategy(config.run.logical_cpus)
    config = config.replace(precision=devices_lib.precision(config.training.precision))
    data = dataset_lib.load(config)
    folder.check_data(config, data)
    with strategy.scope():
        network = network_lib.build(len(data.class_names), precision=config.training.precision)
    evaluate(folder, config, data, network, strategy)


def evaluate(
    folder: run_folder.RunFolder,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    network: network_lib.Network,
    strategy: tf.distribute.Strategy,
) -> None:
    """Scores the validation split, writes the report into the run folder and prints its figures."""
    best = best_weights.latest(folder.best)
    best_weights.load(best, network.model, data.class_names)
    batch_size = config.training.batch_size[0]
    devices_lib.check_batch(batch_size, strategy)
    features = None
    if best.phase == phases.PHASE1.name and config.training.feature_cache_dir:
        cache = feature_cache.FeatureCache(
            config.training.feature_cache_dir,
            network,
            strategy,
            views_lib.Preprocessing(config.data.resize_method),
        )
        features = cache.features(data.validation, "validation", passes=1)
    predictions = predictions_lib.predict(
        data.validation,
        steps.make_eval_step(network, strategy, branches=True),
        strategy,
        batch_size=batch_size,
        preprocessing=views_lib.Preprocessing(config.data.resize_method),
        label="evaluation",
        features=features,
    )
    report.write(folder, config, data, best, network, predictions)
    phase1 = best_weights.find(folder.best, phases.PHASE1)
    chance = 1 / len(data.class_names)
    print(
        f"\nbest weights of {best.phase} (epoch {best.epoch}) on {len(data.validation):,} "
        f"validation images:\n  {predictions.means}   (chance: top-1 {chance:.2%})\n"
        f"  report     {folder.evaluation / 'report.html'}\n"
        f"  figures    {folder.results}\n"
        f"  per label  {folder.evaluation / 'per_label.tsv'}\n"
        f"  tables     {folder.evaluation / '*.csv'}\n"
        f"  charts     {folder.evaluation / 'top1_by_label.png'}, top5_by_label.png\n"
    )
    if phase1 and phase1.phase != best.phase and phase1.validation.top1 > best.validation.top1:
        print(
            f"note: phase 1 alone had {phase1.validation.top1:.2%} top-1. With few images, "
            "--phase2_batchnorm=frozen and more epochs help phase 2 (under another --run).\n"
        )
