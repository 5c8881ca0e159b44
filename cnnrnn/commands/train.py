"""`train`, `phase1`, `phase2`: the whole recipe, or one phase of it."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.commands import evaluate
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import network as network_lib
from cnnrnn.runs import run_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import initial_weights, trainer


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
    strategy: tf.distribute.Strategy | None = None,
    build: Callable[..., network_lib.Network] | None = None,
) -> None:
    """Trains phases one after another in the run's folder.

    Args:
        todo: in order.
        config: --init_from applies to the first phase.
        evaluates: whether to evaluate the best weights at the end.
        strategy: what to train on; None: as the flags say.
        build: makes the network; None: `models.network.build`.
    """
    folder = run_folder.RunFolder(config.run_dir)
    if todo[0] is phases.PHASE2 and not config.training.init_from:
        initial_weights.require_phase1(folder)
    with folder.opened():
        strategy = strategy or devices_lib.strategy(config.run.logical_cpus)
        config = config.replace(precision=devices_lib.precision(config.training.precision))
        configs = [config] + [config.replace(init_from="")] * (len(todo) - 1)
        data = dataset_lib.load(config)
        for phase, own in zip(todo, configs, strict=True):
            folder.check(phase, own, data)
            schedule = phases.schedule(phase, config, len(data.train))
            devices_lib.check_batch(schedule.batch_size, strategy)
        logging.info("network: building it, about ten seconds")
        with strategy.scope():
            network = (build or network_lib.build)(
                len(data.class_names),
                seed=config.run.seed,
                synchronized_batchnorm=strategy.num_replicas_in_sync > 1,
                precision=config.training.precision,
            )
        logging.info(
            f"network: {network.model.count_params():,} parameters, {config.training.precision}, "
            f"on {devices_lib.describe(config.run.logical_cpus)}"
        )
        for phase, own in zip(todo, configs, strict=True):
            setup = trainer.Setup(own, folder, strategy, data, network, evaluates)
            trainer.train_phase(setup, phase)
        if evaluates:
            evaluate.evaluate(folder, config, data, network, strategy)
