"""Differences in accuracy between networks that were trained with several seeds.

Two networks are compared by the same images and the same seeds, so a difference has a value for
each pair of seed and image. Both are samples: other seeds and other images would give another
mean. Their components of variance are those of a two-way random effects analysis of variance
(Searle, Casella, McCulloch: Variance Components, 1992, section 4), as in studies of several readers
and several cases. Each contributes with Student's quantile for its own number: three seeds say
little about how much seeds vary, however many images there are. The part of the seeds is at least
that of what is particular to a seed and an image, with the quantile of the images.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

from cnnrnn.evaluation import confidence_intervals

_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference in accuracy.

    Attributes:
        interval: the mean, with its interval for all comparisons together.
        of_seeds: the mean of each seed.
    """

    interval: confidence_intervals.Interval
    of_seeds: tuple[float, ...]

    @property
    def is_significant(self) -> bool:
        return not self.interval.low <= 0 <= self.interval.high


def difference(first: np.ndarray, second: np.ndarray, comparisons: int = 1) -> Difference:
    """The mean of first - second.

    Args:
        first: (seeds, images), 1 where the image was classified correctly, else 0.
        second: likewise, of the same seeds and images.
        comparisons: with how many the level of 95 % is shared (Bonferroni's correction).
    """
    values = first.astype(np.float64) - second
    seeds, images = values.shape
    mean, of_seeds = float(values.mean()), values.mean(axis=1)
    # Adds half a discordant image in each direction, as `confidence_intervals.paired_difference`
    # does: else the interval of networks that agree on all images would have no width.
    of_images = _variance_of_images(values) + 1 / (images + 2) ** 2
    by_images = _quantile(images, comparisons) ** 2
    square = by_images * of_images
    if seeds > 1:
        # The variance of the seeds' means also holds what is particular to a seed and an image. Few
        # seeds can agree by chance, so it counts as no less than that.
        by_seeds = _quantile(seeds, comparisons) ** 2 * float(np.var(of_seeds, ddof=1)) / seeds
        square += max(by_seeds, by_images * _variance_of_the_rest(values) / values.size)
    low, high = mean - math.sqrt(square), mean + math.sqrt(square)
    interval = confidence_intervals.Interval(mean, max(low, -1.0), min(high, 1.0))
    return Difference(interval, tuple(map(float, of_seeds)))


def _variance_of_images(values: np.ndarray) -> float:
    """How much other images would vary the mean of (seeds, images) values; at least 0."""
    seeds, images = values.shape
    if images == 1:
        return 0.0
    variance = float(np.var(values.mean(axis=0), ddof=1)) - _variance_of_the_rest(values) / seeds
    return max(variance, 0.0) / images


def _variance_of_the_rest(values: np.ndarray) -> float:
    """What neither the seed nor the image of a value explains; 0 if there is one of either."""
    seeds, images = values.shape
    if min(seeds, images) == 1:
        return 0.0
    of_seeds, of_images = values.mean(axis=1, keepdims=True), values.mean(axis=0)
    residuals = values - of_seeds - of_images + values.mean()
    return float(np.sum(residuals**2)) / ((seeds - 1) * (images - 1))


def _quantile(count: int, comparisons: int) -> float:
    """Student's for the mean of `count` values, at the level of one of several comparisons."""
    return float(scipy.stats.t.ppf(1 - (1 - _LEVEL) / (2 * comparisons), max(count - 1, 1)))
