"""Fused updates are those of Keras, under one replica and two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn.training import fused_optimizers
from tests import two_cpus  # noqa: F401

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

# TensorFlow computes Adam's 1 - 0.999 in float32, which is off by 1e-5 of itself.
TOLERANCE = {"rtol": 2e-5, "atol": 1e-6}
NAMES = ("Adam", "AdamW", "RMSprop")
ARGUMENTS = {"AdamW": {"weight_decay": 0.1}}


@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.slow), 2])
def strategy(request, one_replica, two_replicas):
    return {1: one_replica, 2: two_replicas}[request.param]


def random(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def train(module, name, strategy, rate=0.01, steps=5):
    """Variables of all copies and the optimizer, after some steps with random gradients."""
    shapes = [(7, 5), (3,)]
    with strategy.scope():
        variables = [keras.Variable(random(9, shape), name=f"v{len(shape)}") for shape in shapes]
        optimizer = getattr(module, name)(rate, **ARGUMENTS.get(name, {}))
        optimizer.build(variables)

    @tf.function
    def step(gradients):
        # The sum over replicas finds them by the devices of the gradients; arguments have none.
        strategy.run(lambda: optimizer.apply([tf.identity(g) for g in gradients], variables))

    for number in range(steps):
        step([tf.constant(random(number, shape)) for shape in shapes])
    values = [
        value.numpy()
        for variable in (*variables, *optimizer.variables)
        for value in strategy.experimental_local_results(variable.value)
    ]
    return values, optimizer


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_that_of_keras(name, strategy):
    ours, _ = train(fused_optimizers, name, strategy)
    theirs, _ = train(keras.optimizers, name, strategy)
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(value, expected, **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_may_be_a_schedule(name, one_replica):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    ours, _ = train(fused_optimizers, name, one_replica, schedule)
    theirs, _ = train(keras.optimizers, name, one_replica, schedule)
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(value, expected, **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_has_the_entries_of_keras(name, one_replica, tmp_path):
    keys = []
    for module in (fused_optimizers, keras.optimizers):
        _, optimizer = train(module, name, one_replica, steps=1)
        path = tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / module.__name__))
        keys.append([entry for entry in tf.train.list_variables(path)])
    assert keys[0] == keys[1]


def test_the_change_of_a_step_of_rmsprop_is_no_state(one_replica):
    """What an earlier step left there, has no effect."""
    expected, _ = train(fused_optimizers, "RMSprop", one_replica, steps=2)
    with one_replica.scope():
        variables = [keras.Variable(random(9, shape)) for shape in [(7, 5), (3,)]]
        optimizer = fused_optimizers.RMSprop(0.01)
        optimizer.build(variables)
    for number in range(2):
        for index in range(2):
            optimizer._changes(index).assign(tf.fill(variables[index].shape, np.float32(1e30)))
        optimizer.apply([tf.constant(random(number, v.shape)) for v in variables], variables)
    for value, variable in zip(expected, variables, strict=False):
        np.testing.assert_array_equal(value, variable.numpy())
