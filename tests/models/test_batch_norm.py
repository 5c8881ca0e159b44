"""The fused BatchNorm compared with keras.layers.BatchNormalization."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn.models import batch_norm
from tests import two_cpus  # noqa: F401


def layer_pair(**kwargs):
    pair = [
        kind(**kwargs) for kind in (batch_norm.BatchNormalization, keras.layers.BatchNormalization)
    ]
    rng = np.random.default_rng(0)
    for layer in pair:
        layer.build((None, None, None, 6))
    weights = [rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(4)]
    for layer in pair:
        layer.set_weights(weights)
    return pair


def run(layer, x, upstream, training=True):
    """Outputs, gradients with respect to x and the weights, and the weights afterwards."""

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.cast(layer(x, training=training), tf.float32)
            loss = tf.reduce_sum(outputs * upstream)
        return [outputs, *tape.gradient(loss, [x, *layer.trainable_variables])]

    return [value.numpy() for value in step(x)] + layer.get_weights()


@pytest.mark.parametrize("training, trainable", [(True, True), (False, True), (True, False)])
def test_values_gradients_and_moving_averages_match_keras(training, trainable):
    ours, theirs = layer_pair(momentum=0.8)
    ours.trainable = theirs.trainable = trainable
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(3, 2, (3, 5, 4, 6)), tf.float32)
    upstream = tf.constant(rng.normal(size=x.shape), tf.float32)
    before = ours.get_weights()[2]
    for a, b in zip(run(ours, x, upstream, training), run(theirs, x, upstream, training),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    moved = not np.array_equal(ours.get_weights()[2], before)
    assert moved == (training and trainable)


def test_statistics_are_float32_under_a_mixed_policy():
    ours, _ = layer_pair(dtype="mixed_bfloat16", momentum=0.0)
    x = tf.cast(tf.random.stateless_normal((4, 16, 16, 6), (0, 0), mean=1.0), tf.bfloat16)
    exact = tf.cast(x, tf.float32).numpy()
    outputs = ours(x, training=True)
    assert outputs.dtype == tf.bfloat16
    gamma, beta, mean, variance = ours.get_weights()
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, exact.var(axis=(0, 1, 2)), rtol=1e-4)
    right = (exact - mean) / np.sqrt(variance + ours.epsilon) * gamma + beta
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), right, rtol=0.01, atol=0.01)


def test_synchronized_statistics_are_of_the_global_batch(two_replicas):
    x = np.random.default_rng(0).normal(2, 3, (8, 4, 4, 6)).astype(np.float32)
    x[4:] += 5  # the replicas' own statistics differ
    with two_replicas.scope():
        layer = batch_norm.BatchNormalization(synchronized=True, momentum=0.0)
        layer.build((None, 4, 4, 6))
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    batch = next(iter(two_replicas.experimental_distribute_dataset(data)))
    two_replicas.run(tf.function(lambda x: layer(x, training=True)), args=(batch,))
    np.testing.assert_allclose(layer.moving_mean, x.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, x.var(axis=(0, 1, 2)), rtol=1e-5)
