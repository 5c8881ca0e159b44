"""Differences in accuracy between networks that were trained with several seeds.

Two networks are compared by the same images and the same seeds, so a difference has a value for
each pair of seed and image. Both are samples: other seeds and other images would give another
mean. The interval of the mean is that of a two-way random effects analysis of variance, with the
degrees of freedom of Satterthwaite's approximation (Searle, Casella, McCulloch: Variance
Components, 1992, sections 2 and 5), as in studies of several readers and several cases.
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
    of_images = values.mean(axis=0)
    variance, freedom = _variance(values, of_seeds, of_images)
    # Adds half a discordant image in each direction, as `confidence_intervals.paired_difference`
    # does: else the interval of networks that agree on all images would have no width.
    variance += 1 / (images + 2) ** 2
    quantile = scipy.stats.t.ppf(1 - (1 - _LEVEL) / (2 * comparisons), freedom)
    half_width = quantile * math.sqrt(variance)
    interval = confidence_intervals.Interval(mean, mean - half_width, mean + half_width)
    return Difference(interval, tuple(map(float, of_seeds)))


def _variance(
    values: np.ndarray, of_seeds: np.ndarray, of_images: np.ndarray
) -> tuple[float, float]:
    """The variance of the mean, and its degrees of freedom.

    Args:
        values: (seeds, images).
        of_seeds: means over the images.
        of_images: means over the seeds.
    """
    seeds, images = values.shape
    between_images = seeds * float(np.var(of_images, ddof=1)) if images > 1 else 0.0
    if seeds == 1:  # only the images vary
        return between_images / images, max(images - 1, 1)
    between_seeds = images * float(np.var(of_seeds, ddof=1))
    residuals = values - of_seeds[:, np.newaxis] - of_images + values.mean()
    residual = float(np.sum(residuals**2)) / max((seeds - 1) * (images - 1), 1)
    squares = [(between_seeds, seeds - 1), (between_images, max(images - 1, 1))]
    total = between_seeds + between_images - residual
    if total > max(between_seeds, between_images):
        squares.append((residual, (seeds - 1) * max(images - 1, 1)))
    else:  # an estimate of a component of variance is negative, and is taken as 0
        total = max(between_seeds, between_images)
    if total == 0:  # neither seeds nor images differ
        return 0.0, max(images - 1, 1)
    freedom = total**2 / sum(mean_square**2 / own for mean_square, own in squares)
    return total / (seeds * images), max(freedom, 1.0)
