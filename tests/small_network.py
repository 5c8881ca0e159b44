"""A small network in place of the real one: it trains in seconds.

As a script, this is the program's command line with the small network:

    PYTHONPATH=. python tests/small_network.py train --dataset=...
    PYTHONPATH=. python tests/small_network.py verify-resume --dataset=... --kills=50
"""

import functools
import sys

import cnnrnn  # noqa: F401  before TensorFlow: it selects the kernels

# isort: split
import keras
import tensorflow as tf

from cnnrnn import main, shapes
from cnnrnn.commands import cluster, reproduce, verify_resume
from cnnrnn.gpu_check import measurement
from cnnrnn.models import batch_norm, fusion, lstm, rnn_branch
from cnnrnn.models import network as network_lib


def small_build(
    classes: int,
    *,
    seed: int | None = 0,
    synchronized_batchnorm: bool = False,
    precision: str = "float32",
    lstm_kernel: str = "ours",
    variant: network_lib.Variant = network_lib.ORIGINAL,
) -> network_lib.Network:
    """Like `models.network.build`: the same inputs and parts, about 90,000 parameters."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
    with network_lib.policy(precision):
        image = keras.Input((None, None, shapes.CHANNELS), name="image", dtype="float32")
        sequence = keras.Input(
            (shapes.TIMESTEPS, shapes.STEP_FEATURES),
            name=network_lib.SEQUENCE_INPUT,
            dtype="float32",
        )
        x = keras.layers.Conv2D(6, 7, strides=13, use_bias=False, name="conv")(image)
        x = batch_norm.BatchNormalization(name="bn", synchronized=synchronized_batchnorm)(x)
        x = keras.layers.ReLU(name="relu")(x)
        pooling = keras.layers.GlobalAveragePooling2D(dtype="float32", name="cnn_features")
        cnn = keras.Model(image, pooling(x))
        x = rnn_branch.standardized(sequence) if variant.rnn_input == "standardized" else sequence
        x = keras.layers.AveragePooling1D(9, name="few")(x)  # 2 timesteps: fast to trace
        kernel = {"lstm_kernel": lstm_kernel}
        x = lstm.LSTM(6, return_sequences=True, name="lstm_1", **kernel)(x)
        rnn_features = lstm.LSTM(6, name="rnn_features", **kernel)(x)
        if variant.rnn_layer_norm:
            rnn_features = rnn_branch.normalized(rnn_features)
        logits = fusion.build(cnn.output, rnn_features, classes, seed or 0, variant.fusion)
    # Weight files contain the model's name; Keras numbers models without one.
    inputs = {"image": image, network_lib.SEQUENCE_INPUT: sequence}
    model = keras.Model(inputs, logits, name="small")
    rnn = keras.Model(sequence, rnn_features, name="rnn")
    return network_lib.parts_of(model, cnn, rnn, precision, variant)


def measure(name, config, *arguments):
    """`gpu_check.measurement.measure` with the small network; for child processes."""
    network_lib.build = small_build
    return measurement.measure(name, config, *arguments)


def run_graphs_as_traced() -> None:
    """Turns the optimization of graphs off: it takes longer than such short runs save by it.

    It changes how graphs round, so that runs which are compared need the same setting.
    """
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


if __name__ == "__main__":
    network_lib.build = small_build
    run_graphs_as_traced()
    for command in (cluster, reproduce, verify_resume):  # their child processes, too
        command.run = functools.partial(command.run, program=(sys.executable, "-P", __file__))
    main.entry()
