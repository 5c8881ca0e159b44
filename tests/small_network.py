"""A stand-in for the network that trains in seconds.

Run as a script, it is the program's command line with that network in the place of the real one:

    PYTHONPATH=. python tests/small_network.py train --dataset=...
    PYTHONPATH=. python tests/small_network.py verify-resume --dataset=... --kills=50
"""

import functools
import sys

import cnnrnn  # noqa: F401  before TensorFlow: it says which kernels are to be used

# isort: split
import keras

from cnnrnn import main, shapes
from cnnrnn.commands import verify_resume
from cnnrnn.models import batch_norm, fusion, lstm
from cnnrnn.models import network as network_lib
from cnnrnn.system import stop_signals


def small_build(
    classes: int,
    *,
    seed: int = 0,
    synchronized_batchnorm: bool = False,
    precision: str = "float32",
):
    """A stand-in for `models.build` with the same inputs and parts, and a few thousand weights."""
    keras.utils.set_random_seed(seed)
    with network_lib.policy(precision):
        image = keras.Input(
            (shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, 3), name="image", dtype="float32"
        )
        rows = keras.Input((shapes.TIMESTEPS, shapes.STEP_FEATURES), name="rows", dtype="float32")
        x = keras.layers.Conv2D(6, 7, strides=13, use_bias=False, name="conv")(image)
        x = batch_norm.BatchNormalization(name="bn", synchronized=synchronized_batchnorm)(x)
        x = keras.layers.ReLU(name="relu")(x)
        pooling = keras.layers.GlobalAveragePooling2D(dtype="float32", name="cnn_features")
        cnn = keras.Model(image, pooling(x))
        few = keras.layers.AveragePooling1D(9, name="few")(rows)  # 2 timesteps: quick to trace
        sequence = lstm.LSTM(6, return_sequences=True, name="lstm_1")(few)
        rnn_features = lstm.LSTM(6, name="rnn_features")(sequence)
        logits = fusion.build(cnn.output, rnn_features, classes, seed)
    # Named, because a file of weights has the name in it, and Keras counts those without.
    model = keras.Model({"image": image, "rows": rows}, logits, name="small")
    return network_lib.parts_of(model, cnn, precision)


if __name__ == "__main__":
    network_lib.build = small_build
    verify_resume.run = functools.partial(verify_resume.run, program=(sys.executable, __file__))
    stop_signals.install()
    sys.exit(main.main(sys.argv))
