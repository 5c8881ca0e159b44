"""Differences between networks: both sources of variance, and the coverage of the intervals."""

import numpy as np
import pytest
import scipy.stats

from cnnrnn.evaluation import paired_differences


def test_equal_networks_do_not_differ():
    hits = np.random.default_rng(0).integers(0, 2, (3, 50))
    found = paired_differences.difference(hits, hits)
    assert found.interval.value == 0
    # With 50 images, networks that differ on 1 in 20 agree on all of them 8 times in 100.
    assert found.interval.low < -0.03 and found.interval.high > 0.03
    assert not found.is_significant and found.of_seeds == (0, 0, 0)


def test_the_mean_and_the_seeds():
    first, second = np.array([[1, 1, 0, 1], [1, 0, 0, 1]]), np.array([[1, 0, 0, 0], [0, 0, 0, 1]])
    found = paired_differences.difference(first, second)
    assert found.of_seeds == (0.5, 0.25) and found.interval.value == 0.375
    assert found.interval.low < 0.375 < found.interval.high


def test_the_interval_of_a_small_table():
    """By hand: the variance of the mean is 1/256 by seeds and 5/96 by images, and 1/36 is added for
    half an image in each direction; 3 degrees of freedom each.

    Means 1/4, 1/4, 1/4, 1/2 of seeds and 1, 1/4, 0, 0 of images; mean square 1/16 of the rest.
    """
    first = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    interval = paired_differences.difference(first, np.zeros((4, 4))).interval
    half_width = scipy.stats.t.ppf(0.975, 3) * np.sqrt(1 / 256 + 5 / 96 + 1 / 36)
    assert interval.value == 0.3125
    assert interval.low == pytest.approx(0.3125 - half_width)
    assert interval.high == 1  # no difference is larger


def test_more_comparisons_give_wider_intervals():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 2, (2, 4, 80))
    one, three = (paired_differences.difference(first, second, k).interval for k in (1, 3))
    assert three.low < one.low < one.high < three.high


def simulated(rng, seeds, images, by_seed, by_image, noise):
    """Differences around 0.1, as first and second."""
    values = (
        0.1
        + by_seed * rng.normal(size=(seeds, 1))
        + by_image * rng.normal(size=(1, images))
        + noise * rng.normal(size=(seeds, images))
    )
    return values, np.zeros_like(values)


@pytest.mark.parametrize(
    "seeds, by_seed, by_image, noise",
    [
        (5, 0.02, 0.1, 0.3),
        (5, 0.0, 0.3, 0.1),
        (3, 0.05, 0.0, 0.3),
        (2, 0.02, 0.2, 0.2),
        (1, 0.0, 0.3, 0.1),
    ],
)
def test_intervals_cover_the_true_mean_of_other_seeds_and_images(seeds, by_seed, by_image, noise):
    rng = np.random.default_rng(2)
    draws, covered = 600, 0
    for _ in range(draws):
        first, second = simulated(rng, seeds, 200, by_seed, by_image, noise)
        interval = paired_differences.difference(first, second).interval
        covered += interval.low <= 0.1 <= interval.high
    assert 0.93 < covered / draws < 0.995


@pytest.mark.parametrize("seeds", [2, 3])
def test_of_equal_networks_few_comparisons_find_a_difference(seeds):
    """Any of the three of a comparison, in at most 5 of 100 cases (7, as far as 400 tell)."""
    rng = np.random.default_rng(5)
    draws, found = 400, 0
    for _ in range(draws):
        image, seed = rng.normal(1.2, 1.5, 200), rng.normal(0, 0.4, (4, seeds, 1))
        hits = image + seed + rng.normal(0, 0.5, (4, seeds, 200)) > 0
        differences = [paired_differences.difference(hits[0], other, 3) for other in hits[1:]]
        found += any(difference.is_significant for difference in differences)
    assert found / draws < 0.07


def test_seeds_that_agree_by_chance_do_not_narrow_the_interval():
    """In each seed the first network is right on 10 images that the second misses, and the second
    on 6 that the first misses; other images in each seed."""
    values = np.zeros((2, 53))
    values[0, :10], values[0, 10:16] = 1, -1
    values[1, 20:30], values[1, 30:36] = 1, -1
    found = paired_differences.difference(values, np.zeros_like(values), 3)
    assert found.of_seeds[0] == found.of_seeds[1] == pytest.approx(4 / 53)
    as_independent = np.std(values, ddof=1) / np.sqrt(values.size)
    assert not found.is_significant
    assert found.interval.high - found.interval.value > 2 * as_independent


def test_intervals_of_networks_that_differ_by_images_alone_are_not_much_wider_than_needed():
    rng, widths = np.random.default_rng(4), []
    for _ in range(100):
        interval = paired_differences.difference(*simulated(rng, 5, 400, 0.0, 0.3, 0.1)).interval
        widths.append((interval.high - interval.low) / 2)
    needed = 1.96 * np.sqrt(0.3**2 / 400 + 0.1**2 / 2000)
    assert needed < np.mean(widths) < 1.2 * needed


def test_seeds_that_differ_widen_the_interval():
    """200 images and three seeds: images alone would give a far narrower one."""
    rng = np.random.default_rng(3)
    first, second = simulated(rng, 3, 200, 0.05, 0.0, 0.1)
    pooled = 1.96 * np.std(first) / np.sqrt(first.size)
    interval = paired_differences.difference(first, second).interval
    assert interval.high - interval.value > 3 * pooled
