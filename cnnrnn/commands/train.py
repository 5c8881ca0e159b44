"""`train`, `phase1`, `phase2`: the whole recipe, or one phase of it."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import evaluate
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.settings import paths
from cnnrnn.system import cluster as cluster_lib
from cnnrnn.system import console, scheduler, shared_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import text as text_lib
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import class_weights, initial_weights, train_state, trainer


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Trains both phases, then evaluates.

    Raises:
        UsageError, RunError: see `errors`.
    """
    train((phases.PHASE1, phases.PHASE2), config, evaluates=True)


def phase1(arguments: Sequence[str], config: config_lib.Config) -> None:
    train((phases.PHASE1,), config)


def phase2(arguments: Sequence[str], config: config_lib.Config) -> None:
    train((phases.PHASE2,), config)


def train(
    todo: Sequence[phases.Phase],
    config: config_lib.Config,
    *,
    evaluates: bool = False,
    is_last: bool = True,
    strategy: tf.distribute.Strategy | None = None,
) -> network_lib.Network:
    """Trains phases one after another in the run's folder.

    Args:
        todo: in order.
        config: --init_from applies to the first phase.
        evaluates: whether to evaluate the best weights at the end.
        is_last: whether the command ends here, so that the next one is suggested.
        strategy: what to train on; None: as the flags say.

    Returns:
        The network, with the weights of the last step rather than the best ones.
    """
    folder = run_folder.RunFolder(config.run_dir)
    cluster = None if strategy else cluster_lib.find(config.run.strategy)
    with contextlib.ExitStack() as stack:
        if cluster is None or cluster.index == 0:
            _check_folder(folder, todo, config)
            stack.enter_context(folder.opened())
        strategy = strategy or _strategy(cluster, config)
        workers = stack.enter_context(workers_lib.of(strategy))
        config = config.replace(precision=devices_lib.precision(config.training.precision))
        # A kernel that is missing here is an error before the images are checked.
        lstm.choose(config.training.lstm_kernel, config.training.precision)
        configs = [config] + [config.replace(init_from="")] * (len(todo) - 1)
        data = _load(config, workers)
        weights = class_weights.resolve(config, data)
        if weights is not None:
            logging.info(class_weights.describe(weights, data))
        for phase in todo:
            schedule = phases.schedule(phase, config, len(data.train))
            parts = config.optimization.accumulation_steps[phase.index]
            devices_lib.check_batch(schedule.batch_size, strategy, parts)
            _check_pairs(schedule.batch_size, config, workers)
        _check_same(workers, config, data, weights)
        _check_recorded(workers, folder, dict(zip(todo, configs, strict=True)), data, weights)
        logging.info("network: building it, about ten seconds")
        network = train_state.build_network(len(data.class_names), config, strategy)
        phases.check_layers(network, config)
        logging.info(
            f"network: {network.model.count_params():,} parameters, {config.training.precision}, "
            f"on {devices_lib.describe(config.run.logical_cpus, workers.count)}, LSTM kernel: "
            f"{lstm.kernel_name(network.lstm_kernel)}"
        )
        for phase, own in zip(todo, configs, strict=True):
            # No variable: what phase 1 holds is to be free when phase 2 starts.
            trained = trainer.PhaseTrainer(phase, own, folder, data, network, strategy).train(
                phase2_follows=is_last or phases.PHASE2 in todo
            )
            if trained and workers.is_chief:
                _report_best(folder, phase)
        if evaluates:
            evaluate.evaluate(folder, config, data, network, strategy)
        elif trained and is_last and workers.is_chief:
            _report_next_command(folder, todo[-1], config)
        workers.leave()
    return network


def _check_folder(
    folder: run_folder.RunFolder, todo: Sequence[phases.Phase], config: config_lib.Config
) -> None:
    """Raises UsageError if trained weights would be lost, or are missing."""
    for phase in todo:
        if not folder.has_checkpoint(phase):
            initial_weights.check_nothing_is_lost(folder, phase)
    if not folder.has_checkpoint(todo[0]):
        initial_weights.require_trained(todo[0], config, folder)


def _strategy(
    cluster: cluster_lib.Cluster | None, config: config_lib.Config
) -> tf.distribute.Strategy:
    """Joins a cluster, or takes the devices of this machine."""
    if cluster is None:
        scheduler.hide()
        return devices_lib.strategy(config.run.logical_cpus)
    if config.run.logical_cpus > 1:
        raise errors.UsageError(
            f"--logical_cpus={config.run.logical_cpus} cannot be combined with several workers: "
            "each uses its CPU as one device."
        )
    if cluster.index:
        console.only_warnings(f"worker {cluster.index}: ")
    logging.info(f"cluster: {len(cluster.addresses)} workers; waiting for the others to connect")
    return cluster.join(config.run.worker_timeout)


def _load(config: config_lib.Config, workers: workers_lib.Workers) -> dataset_lib.Dataset:
    """Loads the data set; workers that share a cache one after the other.

    The first one prepares the data set and checks the images for the others.
    """
    is_first = shared_folder.is_writer(paths.cache_dir(), workers)
    data = dataset_lib.load(config) if is_first else None
    workers.barrier(limited=False)
    return dataset_lib.load(config) if data is None else data


def _check_pairs(batch_size: int, config: config_lib.Config, workers: workers_lib.Workers) -> None:
    """Raises UsageError if images would be mixed with those of another worker."""
    mixes = config.augmentation.mixup or config.augmentation.cutmix
    if mixes and workers.count > 1 and workers.share.size(batch_size) % 2:
        raise errors.UsageError(
            "--mixup and --cutmix mix neighbors, which must be of one worker: give a --batch_size "
            f"that is a multiple of {2 * workers.count}. Received: {batch_size}."
        )


def _check_recorded(
    workers: workers_lib.Workers,
    folder: run_folder.RunFolder,
    configs: dict[phases.Phase, config_lib.Config],
    data: dataset_lib.Dataset,
    weights: np.ndarray | None,
) -> None:
    """Raises UsageError on all workers if the chief's run was started with other settings."""
    refusal = None
    if workers.is_chief:
        try:
            for phase, config in configs.items():
                folder.check(phase, config, data)
                class_weights.check(folder, phase, config, data, weights)
        except errors.UsageError as error:
            refusal = error
    if workers.any(refusal is not None):
        raise refusal or errors.UsageError("worker 0 refused the settings: see its message.")


def _check_same(
    workers: workers_lib.Workers,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    weights: np.ndarray | None,
) -> None:
    """Raises UsageError on all workers unless they would train the same."""
    values = {
        "flags": json.dumps(_shared_flags(config), sort_keys=True),
        "images": data.fingerprint,
        "class weights": str(None if weights is None else weights.tolist()),
        "versions of TensorFlow and Keras": f"{tf.__version__} {keras.__version__}",
    }
    for name, others in workers.differing({n: v.encode() for n, v in values.items()}).items():
        raise errors.UsageError(
            f"worker {others} has other {name} than worker 0, the chief: give all workers the same "
            "flags, images and version of the program."
        )


def _shared_flags(config: config_lib.Config) -> dict[str, Any]:
    """The flags that all workers must give alike: not those of folders, which can differ."""
    settings = config.to_json()
    for name in ("dataset", "data_dir", "archive", "runs_dir", "feature_cache", "class_weights"):
        del settings[name]
    return settings


def _report_best(folder: run_folder.RunFolder, phase: phases.Phase) -> None:
    best = best_weights.find(folder.best, phase)
    if best is not None:  # None: it could not be written, which --on_save_failure tolerates
        logging.info(
            f"\n{console.styled(f'{phase.name} is done.', 'bold')} Best epoch {best.epoch}: "
            f"validation {best.validation}"
        )


def _report_next_command(
    folder: run_folder.RunFolder, phase: phases.Phase, config: config_lib.Config
) -> None:
    following = "phase2" if phase is phases.PHASE1 else "evaluate"
    without = " except --init_from" if config.training.init_from else ""
    program, runs_dir = text_lib.program(), config.run.runs_dir
    tensorboard = f"tensorboard --logdir={runs_dir}"
    if program != "cnnrnn":
        tensorboard = f"{program} {tensorboard}"
    logging.info(
        f"  results   {folder.root}\n"
        f"  next      {program} {following}, with the same flags{without}\n"
        f"  curves    {tensorboard}\n"
    )
