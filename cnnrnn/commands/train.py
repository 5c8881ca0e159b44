"""`train`, `phase1`, `phase2`: the whole recipe, or one phase of it."""

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.commands import evaluate
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import network as network_lib
from cnnrnn.runs import run_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import initial_weights, trainer


def run(command: str, config: config_lib.Config) -> None:
    """Runs 'phase1', 'phase2', or 'train': both and the evaluation.

    Raises:
        UsageError, RunError: see `errors`.
    """
    folder = run_folder.RunFolder(config.run_dir)
    if command == "phase2" and not config.training.init_from:
        initial_weights.require_phase1(folder)
    with folder.opened():
        _run(command, config, folder)


def _run(command: str, config: config_lib.Config, folder: run_folder.RunFolder) -> None:
    strategy = devices_lib.strategy(config.run.logical_cpus)
    config = config.replace(precision=devices_lib.precision(config.training.precision))
    todo = list(phases.BY_NAME.values()) if command == "train" else [phases.BY_NAME[command]]
    # --init_from is where the command starts: the phase after the first knows nothing of it.
    configs = [config] + [config.replace(init_from="")] * (len(todo) - 1)
    data = dataset_lib.load(config)
    for phase, own in zip(todo, configs, strict=True):
        folder.check(phase, own, data)
        devices_lib.check_batch(
            phases.schedule(phase, config, len(data.train)).batch_size, strategy
        )
    print("network: building it, about ten seconds")
    with strategy.scope():
        network = network_lib.build(
            len(data.class_names),
            seed=config.run.seed,
            synchronized_batchnorm=strategy.num_replicas_in_sync > 1,
            precision=config.training.precision,
        )
    print(
        f"network: {network.model.count_params():,} parameters, {config.training.precision}, on "
        f"{devices_lib.describe(config.run.logical_cpus)}"
    )
    for phase, own in zip(todo, configs, strict=True):
        trainer.train_phase(
            trainer.Setup(own, folder, strategy, data, network, command == "train"), phase
        )
    if command == "train":
        evaluate.evaluate(folder, config, data, network, strategy)
