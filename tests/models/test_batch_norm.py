"""The fused BatchNorm compared with keras.layers.BatchNormalization."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn.models import batch_norm
from tests import two_cpus  # noqa: F401

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


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


def replicated(strategy, kind, x, upstream, trainable=True, dtype="float32"):
    """One training step of a synchronized layer on two replicas' halves, or on one replica.

    Args:
        strategy: of any number of replicas.
        kind: class of the layer.
        x: inputs, (B, H, W, 6).
        upstream: gradient of the loss with respect to the outputs, like x.
        trainable: of the layer.
        dtype: policy of the layer.

    Returns:
        Outputs, gradients with respect to x, gamma and beta, both moving averages (numpy arrays;
        those of gamma and beta have one row for each replica), and the graph.
    """
    with strategy.scope():
        layer = kind(synchronized=True, momentum=0.8, dtype=dtype)
        layer.build((None, None, None, 6))
        rng = np.random.default_rng(0)
        layer.set_weights([rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(4)])
        layer.trainable = trainable

    def step(x, upstream):
        with tf.GradientTape() as tape:
            x = tf.cast(x, layer.compute_dtype)
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * upstream)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        averages = [layer.moving_mean.value, layer.moving_variance.value]
        return [outputs, *gradients, *(tf.identity(value) for value in averages)]

    @tf.function
    def run(x, upstream):
        local = [strategy.experimental_local_results(v) for v in strategy.run(step, (x, upstream))]
        joined = [tf.concat(value, axis=0) for value in local[:2]]
        return joined + [tf.stack(value) for value in local[2:]]

    data = tf.data.Dataset.from_tensor_slices((x, upstream)).batch(len(x))
    batch = next(iter(strategy.experimental_distribute_dataset(data)))
    values = [tf.cast(value, tf.float32).numpy() for value in run(*batch)]
    return values, run.get_concrete_function(*batch).graph


def collectives(graph) -> list[str]:
    return [op.type for op in graph.get_operations() if op.type.startswith("Collective")]


def normal(mean, stddev, batch=8):
    rng = np.random.default_rng(1)
    x = rng.normal(mean, stddev, (batch, 5, 4, 6)).astype(np.float32)
    x[batch // 2 :] += 3 * stddev  # the replicas' own statistics differ
    return x, rng.normal(size=x.shape).astype(np.float32)


@functools.cache
def usual_step(strategy, kind, batch, trainable, dtype):
    """`replicated` on inputs of mean 2; equal calls run once."""
    return replicated(strategy, kind, *normal(2, 3, batch), trainable, dtype)


# The quick tests have each dtype in a trained layer, and a frozen layer in one dtype.
@pytest.mark.parametrize(
    "dtype, tolerance, trainable",
    [
        pytest.param(
            dtype,
            tolerance,
            trainable,
            id=f"{'trained' if trainable else 'frozen'}-{dtype}",
            marks=[] if trainable or dtype == "float32" else pytest.mark.slow,
        )
        for trainable in (True, False)
        for dtype, tolerance in (
            ("float32", 3e-5),
            ("mixed_bfloat16", 0.02),
            ("mixed_float16", 3e-3),
        )
    ],
)
def test_synchronized_step_matches_keras(dtype, tolerance, trainable, two_replicas):
    ours, theirs = (
        usual_step(two_replicas, kind, 8, trainable, dtype)[0]
        for kind in (batch_norm.BatchNormalization, keras.layers.BatchNormalization)
    )
    for name, a, b in zip(
        ("outputs", "x", "gamma", "beta", "mean", "variance"), ours, theirs, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("batch", [8, 7], ids=["equal shares", "shares of 4 and 3"])
def test_two_synchronized_replicas_match_one_on_the_whole_batch(batch, one_replica, two_replicas):
    kind = batch_norm.BatchNormalization
    one, _ = usual_step(one_replica, kind, batch, True, "float32")
    two, _ = usual_step(two_replicas, kind, batch, True, "float32")
    for a, b in zip(one[:2], two[:2], strict=True):  # outputs, gradient with respect to x
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    for a, b in zip(one[2:4], two[2:4], strict=True):  # the optimizer sums these over replicas
        np.testing.assert_allclose(a[0], b.sum(axis=0), rtol=2e-5, atol=2e-5)
    for a, b in zip(one[4:], two[4:], strict=True):  # moving averages
        np.testing.assert_array_equal(b[0], b[1])
        np.testing.assert_allclose(a[0], b[0], rtol=2e-6)


def test_a_synchronized_layer_runs_one_collective_in_each_direction(two_replicas):
    count = {
        kind: collectives(usual_step(two_replicas, kind, 8, True, "float32")[1])
        for kind in (batch_norm.BatchNormalization, keras.layers.BatchNormalization)
    }
    replicas = two_replicas.num_replicas_in_sync
    assert count[batch_norm.BatchNormalization] == ["CollectiveReduceV2"] * 2 * replicas
    assert len(count[keras.layers.BatchNormalization]) == 5 * replicas


def test_the_synchronized_gradient_has_a_deterministic_kernel_on_a_gpu(two_replicas):
    """That of FusedBatchNormV3 with is_training=False has none: it raises UnimplementedError."""
    _, graph = usual_step(two_replicas, batch_norm.BatchNormalization, 8, True, "float32")
    kernels = [op for op in graph.get_operations() if op.type == "FusedBatchNormGradV3"]
    assert [op.get_attr("is_training") for op in kernels] == [True, True]


def test_a_frozen_synchronized_layer_runs_no_collective(two_replicas):
    kind = batch_norm.BatchNormalization
    _, graph = usual_step(two_replicas, kind, 8, False, "float32")
    assert collectives(graph) == []


def test_a_synchronized_layer_on_one_replica_is_the_fused_one(one_replica):
    x, upstream = normal(2, 3)
    kind = batch_norm.BatchNormalization
    alone, graph = usual_step(one_replica, kind, 8, True, "float32")
    assert collectives(graph) == []
    layer, _ = layer_pair(momentum=0.8)
    for a, b in zip(alone[:4], run(layer, tf.constant(x), tf.constant(upstream)), strict=False):
        np.testing.assert_array_equal(a.squeeze(), b.squeeze())


@pytest.mark.parametrize(
    "dtype, mean, stddev",
    [
        ("float32", 1000, 1),  # E(x^2) - E(x)^2 in float32 is off by percents
        ("mixed_float16", 20_000, 3_000),  # the variance is beyond float16
    ],
)
def test_synchronized_statistics_are_accurate(dtype, mean, stddev, two_replicas):
    x, upstream = normal(mean, stddev)
    x = x.astype(np.float16 if dtype == "mixed_float16" else np.float32)
    kind = batch_norm.BatchNormalization
    values, _ = replicated(two_replicas, kind, x, upstream, dtype=dtype)
    start = layer_pair()[0].get_weights()[2:]
    exact = (f(x.astype(np.float64), axis=(0, 1, 2)) for f in (np.mean, np.var))
    for average, first, right in zip(values[4:], start, exact, strict=True):
        np.testing.assert_allclose((average[0] - 0.8 * first) / 0.2, right, rtol=1e-4)
