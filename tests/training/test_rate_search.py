"""Learning rate range test: its curve, its end, its suggestion; two replicas against one."""

import itertools
import math

import numpy as np
import pytest

from cnnrnn import config, phases
from cnnrnn.training import rate_search, steps, train_state
from tests import (
    small_network,
    two_cpus,  # noqa: F401
)
from tests.training import test_steps


def search(losses, non_finite=lambda number: 0.0):
    """The points of steps whose losses are given by a function of the rate."""
    rates = []

    def train_step(batch):
        assert batch == len(rates)  # the rate of a step is set before its batch is drawn
        return np.array([4 * losses(rates[-1]), 0, 0, 4]), np.array(non_finite(len(rates)))

    points = list(rate_search.search(train_step, rates.append, iter(lambda: len(rates), None)))
    return points, rates


def test_rates_grow_exponentially():
    points, rates = search(lambda rate: 1.0)
    assert len(points) == len(rates) == rate_search.STEPS
    assert rates[0] == pytest.approx(1e-7) and rates[-1] == pytest.approx(10)
    np.testing.assert_allclose(np.diff(np.log(rates)), math.log(1e8) / 99)
    assert [point.rate for point in points] == rates


def test_the_smoothed_loss_is_an_average_without_bias():
    points, _ = search(lambda rate: 3.0)
    assert [point.smoothed for point in points] == pytest.approx([3.0] * len(points))
    points, rates = search(lambda rate: -math.log10(rate))
    losses = -np.log10(rates[:3])
    weights = 0.98 ** np.arange(2, -1, -1)
    assert points[2].smoothed == pytest.approx(np.average(losses, weights=weights))


def test_it_stops_when_the_loss_diverges_or_is_not_finite():
    points, _ = search(lambda rate: 2.0 if rate < 0.01 else 1000.0)
    assert len(points) < rate_search.STEPS and points[-1].smoothed > 4 * 2.0
    assert points[-2].smoothed <= 4 * 2.0
    points, _ = search(lambda rate: 2.0 if rate < 0.01 else math.nan)
    assert all(point.rate < 0.01 and point.loss == 2.0 for point in points)
    points, _ = search(lambda rate: 2.0, non_finite=lambda number: float(number == 30))
    assert len(points) == 29


def test_noise_of_the_first_losses_is_not_divergence():
    noisy = iter([0.03, *[0.3] * 99])
    points, _ = search(lambda rate: next(noisy))
    assert len(points) == rate_search.STEPS


def falling_at(steepest, diverging):
    """Losses that fall from 3 to 1 around one rate, with noise, and diverge from another on."""
    noise = np.random.default_rng(0)

    def loss(rate):
        fall = 2 / (1 + (rate / steepest) ** 2)
        return 1 + fall + noise.normal(0, 0.1) if rate < diverging else 1000.0

    return loss


def test_the_suggestion_is_where_the_loss_falls_fastest():
    points, _ = search(falling_at(1e-4, diverging=1.0))
    assert 0.5e-4 < rate_search.suggestion(points) < 2e-4


def test_the_suggestion_does_not_depend_on_the_first_loss():
    falling = falling_at(1e-4, diverging=1.0)
    points, _ = search(lambda rate: 0.03 if rate < 1.1e-7 else falling(rate))
    assert points[0].smoothed == min(point.smoothed for point in points)
    assert 0.5e-4 < rate_search.suggestion(points) < 2e-4


def test_noise_is_not_taken_for_a_falling_loss():
    for seed in range(20):
        noise = np.random.default_rng(seed)
        points, _ = search(lambda rate, noise=noise: 0.7 + 5 * rate + noise.normal(0, 0.02))
        suggested = rate_search.suggestion(points)
        assert suggested is None or suggested >= rate_search.LOWEST


def test_the_suggestion_has_a_margin_to_the_lowest_loss():
    points, _ = search(falling_at(1e-4, diverging=2e-4))
    lowest = min(points, key=lambda point: point.smoothed)
    assert 1e-4 < lowest.rate < 2e-4
    assert rate_search.suggestion(points) == pytest.approx(lowest.rate / 10)


@pytest.mark.parametrize("losses", [lambda rate: 2 + rate, lambda rate: 2.0, lambda rate: math.nan])
def test_there_is_no_suggestion_if_the_loss_never_falls(losses):
    assert rate_search.suggestion(search(losses)[0]) is None


@pytest.mark.slow  # as in training
def test_two_replicas_equal_one(one_replica, two_replicas, monkeypatch):
    monkeypatch.setattr(rate_search, "STEPS", 24)
    curves = []
    batch = test_steps.batches(1)[0]
    for strategy in (one_replica, two_replicas):
        with strategy.scope():
            network = small_network.small_build(
                3, seed=0, synchronized_batchnorm=strategy.num_replicas_in_sync > 1
            )
        state = train_state.create(network, phases.PHASE2, config.Config(), strategy)

        def set_rate(rate, optimizer=state.optimizer):
            optimizer.learning_rate = rate
            assert optimizer.learning_rate.numpy() == pytest.approx(rate)

        inputs = test_steps.distributed(strategy, batch)
        step = steps.make_train_step(state, strategy, test_steps.BATCH)
        found = rate_search.search(step, set_rate, itertools.repeat(inputs))
        curves.append([point.loss for point in found])
    count = rate_search.STEPS * 3 // 4  # rates up to 0.1: beyond, rounding is amplified
    np.testing.assert_allclose(*(curve[:count] for curve in curves), rtol=1e-3)
    assert min(curves[0]) < curves[0][0] - 0.1  # it trains
