"""Optimizers, rates and schedules, averages of the weights."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class OptimizationSettings:
    """Optimizers, rates and schedules, averages of the weights."""

    optimizer: tuple[str, str] = fields.setting(
        ("rmsprop", "adam"),
        "Optimizer: 'rmsprop', 'adam', 'adamw' or 'sgd' (with --momentum).",
        fields.one_of("rmsprop", "adam", "adamw", "sgd"),
    )
    learning_rate: tuple[float, float] = fields.setting(
        (1e-3, 1e-4), "Learning rate; the highest one of a schedule.", fields.POSITIVE_REAL
    )
    rnn_rate_factor: tuple[float, float] = fields.setting(
        (1.0, 1.0),
        "Learning rate of the RNN branch as a multiple of --learning_rate, e.g. 0.03; the rest of "
        "the network is not affected.",
        fields.POSITIVE_REAL,
    )
    schedule: tuple[str, str] = fields.setting(
        ("constant", "constant"),
        "How the learning rate changes over a phase's steps: 'constant'; 'cosine', falling to 0; "
        "or 'onecycle', rising from a 25th in the first quarter, then falling to 0 by a cosine.",
        fields.one_of("constant", "cosine", "onecycle"),
    )
    warmup_epochs: tuple[float, float] = fields.setting(
        (0.0, 0.0),
        "Epochs, or a fraction of one, in which the rate of a constant or cosine schedule rises "
        "linearly from 0.",
        fields.NOT_NEGATIVE,
    )
    weight_decay: float = fields.setting(
        0.01,
        "weight_decay of Keras's AdamW: each step subtracts weight_decay x learning rate x weight; "
        "not for biases, normalization layers and the constants of --fusion=gain.",
        fields.NOT_NEGATIVE,
    )
    momentum: float = fields.setting(0.9, "Momentum of SGD.", fields.FRACTION_OR_ZERO)
    clip_norm: float = fields.setting(
        0.0,
        "Scale the gradient of a step down to this norm, taken over all weights, if it is larger "
        "(Keras's global_clipnorm). 0: off.",
        fields.NOT_NEGATIVE,
    )
    accumulation_steps: tuple[int, int] = fields.setting(
        (1, 1),
        "Compute each batch in this many parts, one after another, and sum their gradients: the "
        "same step in less memory. Unlike Keras's gradient_accumulation_steps, --batch_size stays "
        "the number of images per update. BatchNorm in training then uses the statistics of each "
        "part, and updates its moving averages with each part.",
        fields.POSITIVE,
    )
    ema: float = fields.setting(
        0.0,
        "Decay of an exponential moving average of the weights, e.g. 0.999; the average is what is "
        "validated, kept as best weights and exported. It starts with a lower decay, (1 + t) / "
        "(10 + t) at step t. 0: off.",
        fields.FRACTION_OR_ZERO,
    )
