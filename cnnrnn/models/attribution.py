"""Grad-CAM and input saliency: which parts of an image each branch based a class on.

CNN: Grad-CAM (Selvaraju et al., 2017) over the output of the last convolution, (10, 10).
RNN: saliency (Simonyan et al., 2013), the mean absolute gradient with respect to each of the 23
timesteps. Both are of the log-odds of a class. Where the branches are multiplied, the gradient in
one branch is weighted by the output of the other.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from cnnrnn.models import network as network_lib


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The maps of one image and one class; None for a branch that the network lacks.

    Attributes:
        cam: Grad-CAM of the CNN, (h, w) from 0 to 1. The maximum is 1, unless all values are 0.
        timesteps: saliency of the RNN's timesteps, (23,), scaled likewise.
    """

    cam: np.ndarray | None = None
    timesteps: np.ndarray | None = None


class Explainer:
    """Computes the maps of one network; compiled once.

    Args:
        network: with cuDNN's LSTM kernel it can explain one class of each image only. A gradient of
            cuDNN's can be computed once, since it overwrites what its forward pass has stored for
            it, and here is one gradient per class.
    """

    def __init__(self, network: network_lib.Network):
        pooling = network.cnn.get_layer("cnn_features")
        self._convolutions = keras.Model(network.cnn.input, pooling.input)
        self._pooling, self._network = pooling, network
        self._compiled = tf.function(self.maps, reduce_retracing=True)

    def explain(self, batch: dict[str, tf.Tensor], labels: np.ndarray) -> list[list[Explanation]]:
        """Explains k classes of each image in a batch.

        Args:
            batch: "image" (B, 299, 299, 3) and "sequence" (B, 23, 3887).
            labels: (B, k) int.

        Returns:
            A list of k explanations for each image.
        """
        columns = [tf.constant(column, tf.int32) for column in np.transpose(labels)]
        maps = {name: values.numpy() for name, values in self._compiled(batch, columns).items()}
        images, classes = np.shape(labels)
        return [
            [
                Explanation(**{name: values[image, rank] for name, values in maps.items()})
                for rank in range(classes)
            ]
            for image in range(images)
        ]

    def maps(self, batch: dict[str, tf.Tensor], labels: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The maps as tensors.

        Args:
            batch: as in `explain`.
            labels: k tensors (B,) int32.

        Returns:
            "cam", Grad-CAM (B, k, h, w), and "timesteps", saliency (B, k, 23); without that of a
            branch that the network lacks.

        Raises:
            ValueError: k > 1 with cuDNN's LSTM kernel.
        """
        if len(labels) > 1 and self._network.lstm_kernel != "ours":
            raise ValueError(
                f"explaining several classes needs a network built with lstm_kernel='ours'. "
                f"Received: {self._network.lstm_kernel!r}."
            )
        inputs = {"sequence": batch["sequence"]}
        sources = {}
        if self._network.uses_cnn:
            sources["cam"] = self._convolutions(batch["image"], training=False)  # (B, h, w, 2048)
        if self._network.uses_rnn:
            sources["timesteps"] = inputs["sequence"]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(sources)
            if self._network.uses_cnn:
                inputs["features"] = self._pooling(sources["cam"])
            logits = self._network.logits(inputs, training=False)
            log_odds = [_log_odds(logits, label) for label in labels]
        gradients = [tape.gradient(of_class, sources) for of_class in log_odds]
        compute = {"cam": lambda values: _cam(sources["cam"], values), "timesteps": _saliency}
        return {
            name: tf.stack([compute[name](of_class[name]) for of_class in gradients], axis=1)
            for name in sources
        }


def _log_odds(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """Log-odds (B,) of one class per image.

    Not the logit itself: a softmax depends on differences of logits only, and all logits of an
    image may be negative.
    """
    others = tf.where(tf.one_hot(label, logits.shape[-1]) > 0, -np.inf, logits)
    return tf.gather(logits, label, batch_dims=1) - tf.reduce_logsumexp(others, axis=-1)


def _cam(convolutions: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Grad-CAM (B, h, w) of feature maps and their gradients, (B, h, w, 2048) each."""
    weights = tf.reduce_mean(tf.cast(gradients, tf.float32), axis=(1, 2), keepdims=True)
    values = tf.cast(convolutions, tf.float32)
    return _scale_to_one(tf.nn.relu(tf.reduce_sum(weights * values, axis=-1)))


def _saliency(gradients: tf.Tensor) -> tf.Tensor:
    """Saliency (B, 23) of timesteps, from the gradients in them, (B, 23, 3887)."""
    return _scale_to_one(tf.reduce_mean(tf.abs(gradients), axis=-1))


def _scale_to_one(values: tf.Tensor) -> tf.Tensor:
    """Divides each of (B, ...) non-negative maps by its maximum; zeros stay zeros."""
    maximum = tf.reduce_max(values, axis=range(1, values.shape.rank), keepdims=True)
    return tf.math.divide_no_nan(values, maximum)
