"""Floating-point operations per image, computed from the layer shapes.

A matrix product (m, k) x (k, n) counts as 2mkn operations; everything else is left out. So the
result divided by the peak rate of the machine is a lower bound of the time of a step.
"""

import math

TIMESTEPS, STEP_FEATURES, UNITS, CLASSES = 23, 3887, 2048, 100


def rnn() -> float:
    """Operations of both LSTM layers and the head, forward and backward."""
    total = 0.0
    for features, needs_input_gradient in ((STEP_FEATURES, False), (UNITS, True)):
        kernel = 2 * TIMESTEPS * features * 4 * UNITS
        recurrent = 2 * (TIMESTEPS - 1) * UNITS * 4 * UNITS  # the initial state is zero
        # Forward, gradients of the weights, gradients of the inputs and of the states.
        total += (3 if needs_input_gradient else 2) * kernel + 3 * recurrent
    return total + 3 * 2 * UNITS * CLASSES


def cnn_forward() -> float:
    """Operations of Xception's forward pass at 299 x 299, without its top: 16.7 billion."""
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
    """Operations of a training step, per image.

    Args:
        phase: 1 or 2.
        cached: whether phase 1 reads the CNN features from a cache; otherwise each step runs the
            CNN forward.
    """
    if phase == 2:
        # The backward pass counts twice: gradients of the inputs and of the weights.
        return rnn() + 3 * cnn_forward()
    return rnn() + (0.0 if cached else cnn_forward())
