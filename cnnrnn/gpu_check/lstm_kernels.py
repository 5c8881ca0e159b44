"""The LSTM kernels: the same values and gradients, and which is faster in which precision."""

import time

import keras
import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import shapes
from cnnrnn.gpu_check import measurement
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.system import devices

_PRECISIONS = ("float32", "bfloat16", "float16")
_TOLERANCE = 1e-3  # relative to the largest number of a gradient, in float32
_HALF_TOLERANCE = 0.1
_TIMED_STEPS = 3
# Training never uses it (see `lstm.choose`); its error is measured, and is not a failure.
_UNUSED = "bfloat16 cudnn"


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Runs the first LSTM layer forward and backward with each kernel, on one device.

    Figures: "milliseconds" of a step and "error" by precision and kernel. An error is the largest
    difference from our kernel in float32, of the outputs and of the weights' gradients, relative to
    the largest number. Without a GPU there is our kernel alone. Passes if the errors are small,
    except that of cuDNN in bfloat16.
    """
    # TF32 would hide differences.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    kernels = ("ours", "cudnn") if devices.gpus() else ("ours",)
    batch_size = config.training.batch_size[0]
    rng = np.random.default_rng(0)
    sequences = rng.uniform(-1, 1, (batch_size, shapes.TIMESTEPS, shapes.STEP_FEATURES))
    sequences = tf.constant(sequences, tf.float32)
    reference = None
    milliseconds, error = {}, {}
    for precision in _PRECISIONS:
        for kernel in kernels:
            outputs, seconds = _run(sequences, kernel, precision)
            reference = outputs if reference is None else reference
            name = f"{precision} {kernel}"
            milliseconds[name] = 1000 * seconds
            error[name] = float(
                np.max(  # of NaN it is NaN, which passes no comparison
                    [
                        np.max(np.abs(a - b)) / np.max(np.abs(b))
                        for a, b in zip(outputs, reference, strict=True)
                    ]
                )
            )
    passed = all(
        value <= (_TOLERANCE if "float32" in name else _HALF_TOLERANCE)
        for name, value in error.items()
        if name != _UNUSED
    )
    text = "; ".join(
        f"{name} {milliseconds[name]:.0f} ms, error {error[name]:.0e}" for name in milliseconds
    )
    return measurement.Measurement(passed, text, {"milliseconds": milliseconds, "error": error})


def _run(sequences: tf.Tensor, kernel: str, precision: str) -> tuple[list[np.ndarray], float]:
    """Outputs and gradients of the weights, and the seconds of a step."""
    keras.utils.set_random_seed(0)
    with network_lib.policy(precision):
        layer = lstm.LSTM(shapes.LSTM_UNITS, lstm_kernel=kernel)
    layer.build(sequences.shape)

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = layer(sequences, training=True)
            loss = tf.reduce_sum(tf.square(outputs)) / sequences.shape[0]
        return [outputs, *tape.gradient(loss, layer.trainable_variables)]

    found = [value.numpy() for value in step()]
    start = time.monotonic()
    for _ in range(_TIMED_STEPS):
        step()[-1].numpy()
    return found, (time.monotonic() - start) / _TIMED_STEPS
