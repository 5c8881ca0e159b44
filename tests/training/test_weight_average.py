"""The average of the weights. test_precision has it in steps that float16 skips."""

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, phases
from cnnrnn.training import weight_average
from tests import (
    block_network,
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

EMA = config.Config.of(ema=0.2, learning_rate=(0.01, 0.01))


def values(variables):
    return [np.array(variable) for variable in variables]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.thorough)])
def strategy(request, one_replica, two_replicas):
    return {1: one_replica, 2: two_replicas}[request.param]


def test_it_follows_the_weights_is_swapped_and_starts_again(strategy):
    training = block_network.Training(strategy, phases.PHASE2, EMA)
    average = training.state.average
    weights = weight_average.changing_weights(training.network)
    assert len(weights) == len(training.network.model.weights)  # trained, or moving statistics
    expected = values(weights)
    assert_equal(values(average.trackables().values()), expected)
    for step, batch in enumerate(block_network.batches(4), start=1):
        training.step(batch)
        decay = min(0.2, (1 + step) / (10 + step))  # the second one from the third step on
        expected = [
            decay * mean + (1 - decay) * new
            for mean, new in zip(expected, values(weights), strict=True)
        ]
        for mean, value in zip(expected, average.trackables().values(), strict=True):
            np.testing.assert_allclose(value, mean, atol=1e-6)

    live, means = values(weights), values(average.trackables().values())
    assert not any(np.array_equal(a, b) for a, b in zip(live, means, strict=True))
    with pytest.raises(KeyError), average.applied():
        assert_equal(values(weights), means)
        assert_equal(values(average.trackables().values()), live)
        raise KeyError
    assert_equal(values(weights), live)
    assert_equal(values(average.trackables().values()), means)
    for variable in (*average.trackables().values(), *(weight.value for weight in weights)):
        first, *others = strategy.experimental_local_results(variable)
        for other in others:  # the copies of the replicas
            np.testing.assert_array_equal(first, other)

    # After a swap neither changes with the other.
    average.exchange()
    for weight in weights:
        weight.assign_add(tf.ones_like(weight.value))
    average.exchange()
    assert_equal(values(average.trackables().values()), [mean + 1 for mean in means])
    assert_equal(values(weights), live)

    average.reset()
    assert_equal(values(average.trackables().values()), live)


def test_only_what_a_phase_changes_is_averaged(one_replica):
    with one_replica.scope():
        network = block_network.build()
    phases.set_trainable(network, phases.PHASE1, EMA)
    assert len(weight_average.changing_weights(network)) == 5  # of the LSTM and the head
    frozen = EMA.replace(unfreeze_from="block2_conv2")
    phases.set_trainable(network, phases.PHASE2, frozen)
    # Kernel, scale, offset, two moving statistics; kernel and bias of the shortcut.
    assert len(weight_average.changing_weights(network)) == 5 + 5 + 2
    phases.set_trainable(network, phases.PHASE2, frozen.replace(phase2_batchnorm="frozen"))
    assert len(weight_average.changing_weights(network)) == 5 + 1 + 2
