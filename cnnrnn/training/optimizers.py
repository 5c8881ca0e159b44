"""Optimizers and learning rates.

Optimizers with Keras's state, under a schedule of Keras's where one is asked for. A constant rate
stays a variable of the optimizer, as in the checkpoints of runs without schedules.
"""

import keras
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.models import cnn_branch
from cnnrnn.models import network as network_lib
from cnnrnn.settings import network as network_settings
from cnnrnn.training import fused_optimizers

_KINDS = {
    "rmsprop": fused_optimizers.RMSprop,
    "adam": fused_optimizers.Adam,
    "adamw": fused_optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
_ONECYCLE_WARMUP = 1 / 4  # of the steps
_ONECYCLE_START = 1 / 25  # of the highest rate


def create(
    network: network_lib.Network,
    phase: phases.Phase,
    config: config_lib.Config,
    schedule: phases.Schedule,
) -> keras.optimizers.Optimizer:
    """Creates and builds the optimizer of a phase; called in the scope of the strategy.

    Args:
        network: frozen and unfrozen as the phase wants it.
        phase: which phase.
        config: its optimizer, weight decay, momentum, layer decay and rate of the RNN are read.
        schedule: the phase's numbers.
    """
    settings = config.optimization
    name = settings.optimizer[phase.index]
    kind, arguments = _KINDS[name], {}
    if name == "adamw":
        arguments["weight_decay"] = settings.weight_decay
    elif name == "sgd":
        arguments["momentum"] = settings.momentum
    variables = network.model.trainable_variables
    factors = rate_factors(
        network, config.finetuning.layer_decay, settings.rnn_rate_factor[phase.index]
    )
    if set(factors) != {1.0}:  # else the plain class, as in earlier runs
        kind = _with_rates(kind, factors)
    optimizer = kind(learning_rate(schedule), **arguments)
    if name == "adamw":
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if not _decays(v)])
    optimizer.build(variables)
    return optimizer


def learning_rate(schedule: phases.Schedule) -> float | keras.optimizers.schedules.CosineDecay:
    """The rate of a phase as an optimizer takes it."""
    rate, warmup, total = schedule.learning_rate, schedule.warmup_steps, schedule.total_steps
    if schedule.kind == "onecycle":
        warmup, start = int(total * _ONECYCLE_WARMUP), rate * _ONECYCLE_START
    else:
        start = 0.0
    if schedule.kind == "constant":
        if not warmup:
            return rate
        # Does not fall, so the number of its steps has no effect: more epochs change nothing.
        decay_steps, alpha = 1, 1.0
    else:
        decay_steps, alpha = total - warmup, 0.0
    rising = {"warmup_target": rate, "warmup_steps": warmup} if warmup else {}
    return keras.optimizers.schedules.CosineDecay(
        start if warmup else rate, decay_steps, alpha, **rising
    )


def rate_at(schedule: phases.Schedule, step: int) -> float:
    """The learning rate of a step; the first one is 0."""
    rate = learning_rate(schedule)
    return rate if isinstance(rate, float) else float(rate(step))


def describe(phase: phases.Phase, schedule: phases.Schedule, config: config_lib.Config) -> str:
    """'Adam at 0.0001', 'SGD at 0.01, RNN at 0.001, cosine, 280 steps of warm-up'."""
    kind = _KINDS[config.optimization.optimizer[phase.index]]
    text = f"{kind.__name__} at {schedule.learning_rate:g}"
    factor = config.optimization.rnn_rate_factor[phase.index]
    if factor != 1 and config.network.fusion not in network_settings.WITHOUT_RNN:
        text += f", RNN at {schedule.learning_rate * factor:g}"
    if schedule.kind != "constant":
        text += f", {schedule.kind}"
    if schedule.warmup_steps:
        text += f", {schedule.warmup_steps:,} steps of warm-up"
    return text


def rate_factors(network: network_lib.Network, decay: float, rnn: float) -> list[float]:
    """The factor of the learning rate of each trainable variable of a network.

    Args:
        network: the last block of its CNN gets the factor `decay`, the one below it its square,
            and so on; the head gets 1.
        decay: --layer_decay; without effect where the CNN is frozen.
        rnn: the factor of the RNN, --rnn_rate_factor.
    """
    factors = {
        id(variable): decay**depth
        for depth, block in enumerate(reversed(cnn_branch.blocks(network.cnn)), start=1)
        for layer in block
        for variable in layer.trainable_variables
    }
    factors |= {id(variable): rnn for variable in network.rnn.trainable_variables}
    return [factors.get(id(variable), 1.0) for variable in network.model.trainable_variables]


def _decays(variable: keras.Variable) -> bool:
    """Whether weights decay: kernels do, and biases and BatchNorm's scales and offsets do not.

    These are the vectors among the weights.
    """
    return len(variable.shape) > 1


def _with_rates(
    kind: type[keras.optimizers.Optimizer], factors: list[float]
) -> type[keras.optimizers.Optimizer]:
    """An optimizer class with a factor of the learning rate for each variable it is built for.

    Weight decay is proportional to the learning rate, so it has the same factor. Keras subtracts it
    from all variables before the update; here it is part of the update of each.
    """

    class Optimizer(kind):
        def update_step(self, gradient, variable, learning_rate):
            rate = learning_rate * factors[self._get_variable_index(variable)]
            if self.weight_decay is not None and self._use_weight_decay(variable):
                self.assign_sub(variable, variable * (self.weight_decay * rate))
            super().update_step(gradient, variable, rate)

        def _apply_weight_decay(self, variables: list[tf.Variable]) -> None:
            """Nothing: see `update_step`."""

    return Optimizer
