"""BatchNorm in one fused operation where Keras 3 composes it of a dozen."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="cnnrnn")
class BatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization over the last axis: same variables, same values.

    Keras computes the statistics and the normalization of a training step by separate operations,
    each of which reads and writes the whole activation, and under a mixed policy converts it to
    float32 and back. Here it is TensorFlow's fused operation, which reads the compute dtype,
    keeps its statistics in float32, and takes the ReLU that follows with it on a CPU.

    Over several replicas (`synchronized`) and in inference it is Keras's: the first because the
    fused operation knows one replica only, the second because nothing is gained there (measured:
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
