"""Confidence intervals: coverage, and the values near 0 and 1."""

import numpy as np
import pytest

from cnnrnn.evaluation import confidence_intervals


def test_intervals_contain_their_estimate_and_cover_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = {"proportion": 0, "mean": 0}
    for _ in range(2000):
        hits = (rng.random(100) < 0.9).astype(np.float32)
        losses = rng.exponential(2.0, 200)
        proportion = confidence_intervals.proportion(hits)
        mean = confidence_intervals.mean(losses)
        assert 0 <= proportion.low <= proportion.value <= proportion.high <= 1
        covered["proportion"] += proportion.low <= 0.9 <= proportion.high
        covered["mean"] += mean.low <= 2.0 <= mean.high
    assert all(0.92 < count / 2000 < 0.97 for count in covered.values())


def test_wilsons_interval_of_known_counts():
    interval = confidence_intervals.proportion(np.repeat([1, 0], [73, 7]).astype(np.float32))
    assert interval.value == 73 / 80
    assert interval.low == pytest.approx(0.830232, abs=1e-6)
    assert interval.high == pytest.approx(0.956968, abs=1e-6)


def test_all_hits_have_a_lower_bound_below_1():
    interval = confidence_intervals.proportion(np.ones(20))
    assert interval.low < 0.9 and interval.high == interval.value == 1


def test_the_mean_of_one_value_has_an_infinite_interval():
    interval = confidence_intervals.mean(np.array([1.5]))
    assert (interval.value, interval.low, interval.high) == (1.5, -np.inf, np.inf)
