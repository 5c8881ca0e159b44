"""Floating-point operations that one image costs, from the shapes of the layers alone.

A product of (m, k) and (k, n) counts 2mkn. What is not a product is left out: what this gives,
divided by the peak rate of the machine, is the least time that a step can take.
"""

import math

TIMESTEPS, STEP_FEATURES, UNITS, CLASSES = 23, 3887, 2048, 100


def rnn() -> float:
    """Forward and backward of both LSTM layers and the head."""
    total = 0.0
    for features, needs_input_gradient in ((STEP_FEATURES, False), (UNITS, True)):
        kernel = 2 * TIMESTEPS * features * 4 * UNITS
        recurrent = 2 * (TIMESTEPS - 1) * UNITS * 4 * UNITS  # the first state is zero
        # Forward, the weights' gradients, and the gradients of the inputs and of the states.
        total += (3 if needs_input_gradient else 2) * kernel + 3 * recurrent
    return total + 3 * 2 * UNITS * CLASSES


def cnn_forward() -> float:
    """Forward of Xception at 299 x 299, without its top: 16.7 billion."""
    import keras

    xception = keras.applications.Xception(
        include_top=False, weights=None, input_shape=(299, 299, 3)
    )
    total = 0.0
    for layer in xception.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.SeparableConv2D):
            _, height, width, _ = layer.output.shape
            total += 2 * height * width * sum(math.prod(w.shape) for w in layer.weights)
    return total


def per_image(phase: int, *, cached: bool) -> float:
    """Of a training step, per image.

    Args:
        phase: 1 or 2.
        cached: the features are given in phase 1; else each step runs the CNN forward.
    """
    if phase == 2:
        # Backward twice as much as forward: gradients of the inputs and of the weights.
        return rnn() + 3 * cnn_forward()
    return rnn() + (0.0 if cached else cnn_forward())
