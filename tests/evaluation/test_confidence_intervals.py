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


def test_percentage_points_have_no_minus_sign_at_zero():
    points = confidence_intervals.Interval(0.0, -1e-5, 0.00123).points()
    assert [f"{value:+.2f}" for value in points] == ["+0.00", "+0.00", "+0.12"]


def test_all_hits_have_a_lower_bound_below_1():
    interval = confidence_intervals.proportion(np.ones(20))
    assert interval.low < 0.9 and interval.high == interval.value == 1


@pytest.mark.parametrize("count", [50, 1000])
@pytest.mark.parametrize("gained, lost", [(0.0, 0.0), (0.0, 0.01), (0.005, 0.02), (0.1, 0.1)])
def test_intervals_of_paired_differences_cover_the_truth_where_few_images_differ(
    count, gained, lost
):
    """The central limit theorem's cover it 39 times in 100 at 1 lost image in 100 of 50."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(1000):
        drawn = rng.random(count)
        differences = np.where(drawn < lost, 1.0, np.where(drawn > 1 - gained, -1.0, 0.0))
        interval = confidence_intervals.paired_difference(differences)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= lost - gained <= interval.high
    assert covered / 1000 > 0.92


def test_no_difference_is_larger_than_one():
    interval = confidence_intervals.paired_difference(np.ones(100))
    assert interval.high == 1 and 0.9 < interval.low < 1


def test_the_mean_of_one_value_has_an_infinite_interval():
    interval = confidence_intervals.mean(np.array([1.5]))
    assert (interval.value, interval.low, interval.high) == (1.5, -np.inf, np.inf)


@pytest.mark.parametrize("sizes", [(5,) * 10, (40, 10, 4, 2, 1), (500, 20), (3, 3, 3), (50,) * 100])
@pytest.mark.parametrize("lowest", [0.5, 0.97])
def test_intervals_of_a_mean_of_proportions_cover_the_truth(sizes, lowest):
    """Simpler ones cover it as rarely as 24 times in 100 where nearly all values are hits."""
    rng = np.random.default_rng(2)
    truth = np.linspace(0.98, lowest, len(sizes))
    group = np.repeat(np.arange(len(sizes)), sizes)
    covered, width = 0, 0
    for _ in range(400):
        hits = (rng.random(len(group)) < truth[group]).astype(np.float32)
        interval = confidence_intervals.mean_of_proportions(hits, group)
        assert -1e-12 < interval.low <= interval.value <= interval.high < 1 + 1e-12
        covered += interval.low <= truth.mean() <= interval.high
        width += (interval.high - interval.low) / 400
    assert covered / 400 > 0.92
    standard_error = np.sqrt(np.sum(truth * (1 - truth) / sizes)) / len(sizes)
    assert width < 1.35 * 2 * 1.96 * standard_error or min(sizes) < 50


@pytest.mark.parametrize("hits", [(20, 38), (40, 40), (0, 0)])
def test_groups_of_the_same_size_have_wilsons_interval(hits):
    hits = np.concatenate([np.arange(40) < count for count in hits]).astype(np.float32)
    expected = confidence_intervals.proportion(hits)
    interval = confidence_intervals.mean_of_proportions(hits, np.repeat([3, 5], 40))
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-12
    )


def test_groups_have_the_same_weight_whatever_their_size():
    hits = np.repeat([1, 0], [90, 10]).astype(
        np.float32
    )  # all of the first group, none of the other
    group = np.repeat([0, 1], [90, 10])
    assert confidence_intervals.mean_of_proportions(hits, group).value == 0.5
