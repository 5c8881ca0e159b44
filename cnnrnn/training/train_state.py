"""Training state of a phase: network, optimizer, loss scale, average of the weights."""

import dataclasses

import keras
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.training import loss_scale as loss_scale_lib
from cnnrnn.training import optimizers, weight_average


@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a training step reads and updates.

    Attributes:
        network: frozen and unfrozen as the phase wants it.
        optimizer: built for the network's trainable variables.
        loss_scale: for float16, else None.
        average: with --ema, else None.
    """

    network: network_lib.Network
    optimizer: keras.optimizers.Optimizer
    loss_scale: loss_scale_lib.LossScale | None = None
    average: weight_average.WeightAverage | None = None

    def trackables(self) -> dict[str, tf.Variable]:
        """Variables besides those of network and optimizer, by their keys in a checkpoint."""
        parts = [part for part in (self.loss_scale, self.average) if part is not None]
        return {key: value for part in parts for key, value in part.trackables().items()}


def build_network(
    classes: int, config: config_lib.Config, strategy: tf.distribute.Strategy
) -> network_lib.Network:
    """Builds the network with random weights under a strategy.

    Args:
        classes: number of classes.
        config: its seed and precision, which must not be 'auto' any more.
        strategy: with several replicas BatchNorm is synchronized.

    Raises:
        UsageError: the LSTM kernel cannot run on this machine or in this precision.
    """
    with strategy.scope():
        return network_lib.build(
            classes,
            seed=config.run.seed,
            synchronized_batchnorm=strategy.num_replicas_in_sync > 1,
            precision=config.training.precision,
            lstm_kernel=lstm.choose(config.training.lstm_kernel, config.training.precision),
            variant=network_lib.Variant.of(dataclasses.asdict(config.network)),
        )


def create(
    network: network_lib.Network,
    phase: phases.Phase,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    schedule: phases.Schedule | None = None,
) -> TrainState:
    """Freezes the network for a phase and creates a new optimizer for what is left trainable.

    Args:
        network: built under `strategy`.
        phase: which phase.
        config: settings.
        strategy: what to train on.
        schedule: the phase's numbers. None: those of a training split of one batch, for
            measurements, which do not depend on the rate.
    """
    if schedule is None:
        schedule = phases.schedule(phase, config, config.training.batch_size[phase.index])
    phases.set_trainable(network, phase, config)
    if phase.train_cnn:
        phases.set_batchnorm_momentum(network, schedule)
    decay = config.optimization.ema
    with strategy.scope():
        optimizer = optimizers.create(network, phase, config, schedule)
        uses_float16 = network.precision == "float16"
        loss_scale = loss_scale_lib.LossScale() if uses_float16 else None
        average = weight_average.WeightAverage(network, decay) if decay else None
    return TrainState(network, optimizer, loss_scale, average)
