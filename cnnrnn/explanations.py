"""Where in a picture the network found what it says: a map for each branch.

CNN: Grad-CAM (Selvaraju et al. 2017) over the last convolution's output, (10, 10). RNN: saliency
(Simonyan et al. 2013), the size of the gradient in the input, over each of the 23 bands of
thirteen pixel rows that are the timesteps. Both are of the log-odds of one class, and the branches
are multiplied: each map is given what the other branch puts out.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from cnnrnn import models


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One picture and one class.

    Attributes:
        cam: (h, w) from 0 to 1, 1 being where the CNN found the most; zeros if nowhere.
        bands: (23,) from 0 to 1, likewise of the RNN.
    """

    cam: np.ndarray
    bands: np.ndarray


class Explainer:
    """Explains batches of one network; compiled once."""

    def __init__(self, network: models.Network):
        pooling = network.cnn.get_layer("cnn_features")
        self._convolutions = keras.Model(network.cnn.input, pooling.input)
        self._pooling, self._network = pooling, network
        self._compiled = tf.function(self.maps, reduce_retracing=True)

    def explain(self, batch: dict[str, tf.Tensor], labels: np.ndarray) -> list[Explanation]:
        """Explains each picture of a batch for one class.

        Args:
            batch: "image" (B, 299, 299, 3) and "rows" (B, 23, 3887).
            labels: (B,) int, the class of each.
        """
        cams, bands = self._compiled(batch, tf.constant(labels, tf.int32))
        return [Explanation(*maps) for maps in zip(cams.numpy(), bands.numpy(), strict=True)]

    def maps(self, batch: dict[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The same as tensors: (B, h, w) and (B, 23)."""
        convolutions = self._convolutions(batch["image"], training=False)  # (B, h, w, 2048)
        rows = batch["rows"]
        with tf.GradientTape() as tape:
            tape.watch([convolutions, rows])
            outputs = [self._pooling(convolutions), self._network.rnn(rows, training=False)]
            logits = self._network.fusion(outputs, training=False)
            others = tf.where(tf.one_hot(labels, logits.shape[-1]) > 0, -np.inf, logits)
            # The log-odds of the class. Its logit alone says nothing: a softmax looks at
            # differences, and all logits of a picture may lie below zero.
            wanted = tf.gather(logits, labels, batch_dims=1) - tf.reduce_logsumexp(others, axis=-1)
        of_convolutions, of_rows = tape.gradient(wanted, [convolutions, rows])
        convolutions = tf.cast(convolutions, tf.float32)
        of_convolutions = tf.cast(of_convolutions, tf.float32)
        weights = tf.reduce_mean(of_convolutions, axis=(1, 2), keepdims=True)  # (B, 1, 1, 2048)
        cam = tf.nn.relu(tf.reduce_sum(weights * convolutions, axis=-1))
        return _to_one(cam), _to_one(tf.reduce_mean(tf.abs(of_rows), axis=-1))


def _to_one(values: tf.Tensor) -> tf.Tensor:
    """Scales (B, ...) of 0 and more so that the largest of each is 1; zeros stay zeros."""
    largest = tf.reduce_max(values, axis=range(1, values.shape.rank), keepdims=True)
    return tf.math.divide_no_nan(values, largest)
