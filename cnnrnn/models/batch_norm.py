"""BatchNorm as one fused operation; Keras 3 composes it of a dozen."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="cnnrnn")
class BatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization over the last axis, with the same variables and values.

    In a training step Keras computes statistics and normalization by separate operations, each of
    which reads and writes the activation, and under a mixed policy converts it to float32 and
    back. TensorFlow's fused operation reads the compute dtype, keeps its statistics in float32,
    and on a CPU includes the ReLU that follows.

    With `synchronized` (several replicas) and in inference, Keras's own implementation runs: the
    fused operation supports one replica only, and inference is no faster with it (measured in
    BUILD_NOTES.md, "Speed").
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable) or self.synchronized or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        with keras.src.backend.AutocastScope(None):  # scale and offset stay float32
            scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        none = tf.constant([], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=none,
            variance=none,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation returns the unbiased variance; Keras averages the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        variance *= (count - 1) / count
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs
