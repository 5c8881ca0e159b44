"""The exponential moving average of the weights. Keras's own fails inside a replica."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from cnnrnn import phases
from cnnrnn.models import network as network_lib


class WeightAverage:
    """An average of all weights that a phase changes: trained ones and BatchNorm's statistics.

    Args:
        network: frozen and unfrozen as the phase wants it. Created, like this object, in the scope
            of the strategy.
        decay: of the average.
    """

    def __init__(self, network: network_lib.Network, decay: float):
        self._decay = decay
        self._weights = changing_weights(network)
        self._averages = [
            tf.Variable(tf.convert_to_tensor(weight.value), trainable=False)
            for weight in self._weights
        ]

    def reset(self) -> None:
        """Starts again at the present weights; called once the initial ones are loaded."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.assign(weight.value)

    def update(self, step: tf.Tensor) -> None:
        """Follows the weights after a step; called in each replica.

        Args:
            step: () number of steps done. Early on the average follows faster, by
                min(decay, (1 + step) / (10 + step)), and so forgets the initial weights.
        """
        step = tf.cast(step, tf.float32)
        distance = 1 - tf.minimum(self._decay, (1 + step) / (10 + step))
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.assign_sub((average - weight.value) * distance)

    def exchange(self) -> None:
        """Swaps weights and average in place, one variable after another; twice changes no bit."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            value = tf.identity(weight.value)
            weight.assign(tf.identity(average))
            average.assign(value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the average as its weights in this context.

        A checkpoint must not be saved in it.
        """
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def trackables(self) -> dict[str, tf.Variable]:
        """The averages by their keys in a checkpoint."""
        return {
            f"average_{weight.path.replace('/', '_')}": average
            for weight, average in zip(self._weights, self._averages, strict=True)
        }


def changing_weights(network: network_lib.Network) -> list[keras.Variable]:
    """The weights that training steps change, in a fixed order."""
    moving = [
        variable
        for layer in phases.batchnorm_layers(network)
        if layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
    return [*network.model.trainable_variables, *moving]
