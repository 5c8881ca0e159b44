"""Where in an image the network found what it says: a map for each branch.

CNN: Grad-CAM (Selvaraju et al. 2017) over the last convolution's output, (10, 10). RNN: saliency
(Simonyan et al. 2013), the size of the gradient in the input, over each of the 23 timesteps of
thirteen pixel rows that are the timesteps. Both are of the log-odds of one class, and the branches
are multiplied: each map is given what the other branch puts out.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from cnnrnn.models import network as network_lib


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One image and one class.

    Attributes:
        cam: (h, w) from 0 to 1, 1 being where the CNN found the most; zeros if nowhere.
        timesteps: (23,) from 0 to 1, likewise of the RNN.
    """

    cam: np.ndarray
    timesteps: np.ndarray


class Explainer:
    """Explains batches of one network; compiled once."""

    def __init__(self, network: network_lib.Network):
        pooling = network.cnn.get_layer("cnn_features")
        self._convolutions = keras.Model(network.cnn.input, pooling.input)
        self._pooling, self._network = pooling, network
        self._compiled = tf.function(self.maps, reduce_retracing=True)

    def explain(self, batch: dict[str, tf.Tensor], labels: np.ndarray) -> list[list[Explanation]]:
        """Explains each image of a batch for some classes.

        Args:
            batch: "image" (B, 299, 299, 3) and "sequence" (B, 23, 3887).
            labels: (B, k) int, the classes of each.

        Returns:
            B lists of k.
        """
        of_rank = [tf.constant(column, tf.int32) for column in np.transpose(labels)]
        cams, timesteps = self._compiled(batch, of_rank)
        return [
            [Explanation(*maps) for maps in zip(*of_image, strict=True)]
            for of_image in zip(cams.numpy(), timesteps.numpy(), strict=True)
        ]

    def maps(
        self, batch: dict[str, tf.Tensor], labels: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same as tensors, of k times (B,) labels: (B, k, h, w) and (B, k, 23)."""
        convolutions = self._convolutions(batch["image"], training=False)  # (B, h, w, 2048)
        rows = batch["sequence"]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([convolutions, rows])
            outputs = [self._pooling(convolutions), self._network.rnn(rows, training=False)]
            logits = self._network.fusion(outputs, training=False)
            odds = [_log_odds(logits, label) for label in labels]
        gradients = [tape.gradient(of_class, [convolutions, rows]) for of_class in odds]
        cams = [_cam(convolutions, of_convolutions) for of_convolutions, _ in gradients]
        timesteps = [_to_one(tf.reduce_mean(tf.abs(of_rows), axis=-1)) for _, of_rows in gradients]
        return tf.stack(cams, axis=1), tf.stack(timesteps, axis=1)


def _log_odds(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """(B,) of one class each. A logit alone says nothing: a softmax looks at differences, and all
    logits of an image may lie below zero."""
    others = tf.where(tf.one_hot(label, logits.shape[-1]) > 0, -np.inf, logits)
    return tf.gather(logits, label, batch_dims=1) - tf.reduce_logsumexp(others, axis=-1)


def _cam(convolutions: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Grad-CAM of (B, h, w, 2048) values and their gradients: (B, h, w)."""
    weights = tf.reduce_mean(tf.cast(gradients, tf.float32), axis=(1, 2), keepdims=True)
    values = tf.cast(convolutions, tf.float32)
    return _to_one(tf.nn.relu(tf.reduce_sum(weights * values, axis=-1)))


def _to_one(values: tf.Tensor) -> tf.Tensor:
    """Scales (B, ...) of 0 and more so that the largest of each is 1; zeros stay zeros."""
    largest = tf.reduce_max(values, axis=range(1, values.shape.rank), keepdims=True)
    return tf.math.divide_no_nan(values, largest)
