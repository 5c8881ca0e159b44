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

    With `synchronized`, several replicas normalize with the statistics of the global batch. Keras
    runs five collectives for each layer and replica; this layer runs two, one in each direction.

    In inference Keras's own implementation runs: the fused operation is no faster (measured in
    BUILD_NOTES.md, "Speed"), and its gradient has no deterministic kernel on a GPU.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable) or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        with keras.src.backend.AutocastScope(None):  # scale and offset stay float32
            scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        replica = tf.distribute.get_replica_context()  # None outside of the replicas
        if self.synchronized and replica and replica.num_replicas_in_sync > 1:
            outputs, mean, variance = _synchronized(inputs, scale, offset, self.epsilon)
        else:
            outputs, mean, unbiased, *_ = _fused(inputs, scale, offset, self.epsilon)
            variance = _biased(unbiased, _count(inputs))
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


def _fused(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    moments: tuple[tf.Tensor, tf.Tensor] | None = None,
):
    """The fused operation: (x - mean) / sqrt(variance + epsilon) * scale + offset.

    Args:
        x: (B, H, W, C) float32, bfloat16 or float16.
        scale: (C,) float32.
        offset: (C,) float32.
        epsilon: added to the variance.
        moments: mean and variance, (C,) float32; None: those of x.

    Returns:
        y like x; without `moments` also batch_mean and the unbiased batch_variance of x, (C,)
        float32, and what the operation's gradient needs.
    """
    mean, variance = moments or [tf.constant([], tf.float32)] * 2
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=moments is None,
    )


def _biased(variance: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The variance that Keras averages, from the unbiased one of `count` values."""
    return variance * ((count - 1) / count)


def _count(x: tf.Tensor) -> tf.Tensor:
    """() float32, values in one channel of x (B, H, W, C)."""
    return tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)


def _synchronized(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """BatchNorm of the batch of all replicas.

    The gradients with respect to scale and offset are this replica's share; the optimizer sums
    them over replicas, like all others.

    Args:
        x: this replica's share of the batch, (B, H, W, C) float32, bfloat16 or float16.
        scale: (C,) float32.
        offset: (C,) float32.
        epsilon: added to the variance.

    Returns:
        Outputs like x; mean and biased variance of x over all replicas, (C,) float32.
    """
    replica = tf.distribute.get_replica_context()

    @tf.custom_gradient
    def batch_norm(x, scale, offset):
        local = _fused(x, tf.ones_like(scale), tf.zeros_like(offset), epsilon)  # for its moments
        count = _count(x)
        local_variance = _biased(local.batch_variance, count)
        mean, variance, total = _over_replicas(local.batch_mean, local_variance, count, replica)

        def gradient(upstream, *_):
            # The fused gradient of this replica's own BatchNorm, which differs from the one sought
            # by the moments that it normalizes with, and by the means of upstream and of upstream
            # times normalized x, which it subtracts: both differences are linear in x. The
            # gradient with constant moments would be simpler, but has no deterministic kernel on
            # a GPU, and a slow one.
            inverse, local_inverse = (
                tf.math.rsqrt(v + epsilon) for v in (variance, local_variance)
            )
            # normalized = ratio * (normalized with the local moments) + shift
            ratio, shift = inverse / local_inverse, (local.batch_mean - mean) * inverse
            local_gradient, product_sum, offset_sum, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=upstream,
                x=x,
                scale=scale * ratio,
                reserve_space_1=local.reserve_space_1,
                reserve_space_2=local.reserve_space_2,
                reserve_space_3=local.reserve_space_3,
                epsilon=epsilon,
                is_training=True,
            )
            scale_sum = ratio * product_sum + shift * offset_sum
            both = tf.stack([scale_sum, offset_sum])
            sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, both)
            scale_mean, offset_mean = tf.unstack(sums / total)
            restored = product_sum / count / ratio
            slope = scale * inverse
            linear = _fused(
                x,
                slope * (restored - scale_mean),
                slope * (offset_sum / count - shift * restored - offset_mean),
                epsilon,
                (mean, variance),
            ).y
            return local_gradient + linear, scale_sum, offset_sum

        outputs = _fused(x, scale, offset, epsilon, (mean, variance)).y
        return (outputs, mean, variance), gradient

    return batch_norm(x, scale, offset)


def _over_replicas(
    mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor, replica: tf.distribute.ReplicaContext
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean and biased variance over all replicas, (C,), and () how many values each is of.

    Each replica contributes one row to an all-reduced table. From the rows the variance is the
    mean of the variances plus the variance of the means, which does not cancel as the difference
    of the mean square and the squared mean does. Sums with zeros are exact, so the table has the
    same bits on every replica, in whatever order the collective adds.
    """
    row = tf.concat([mean, variance, [count]], axis=0)
    place = tf.one_hot(replica.replica_id_in_sync_group, replica.num_replicas_in_sync)
    table = replica.all_reduce(tf.distribute.ReduceOp.SUM, place[:, tf.newaxis] * row)
    channels = mean.shape[0]
    means, variances, counts = tf.split(table, [channels, channels, 1], axis=1)
    total = tf.reduce_sum(counts)
    weights = counts / total
    mean = tf.reduce_sum(weights * means, axis=0)
    variance = tf.reduce_sum(weights * (variances + tf.square(means - mean)), axis=0)
    return mean, variance, total
