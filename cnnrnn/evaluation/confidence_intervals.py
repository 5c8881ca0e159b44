"""95 % confidence intervals of proportions and means."""

import dataclasses
import math

import numpy as np
import scipy.special
import scipy.stats

_LEVEL = 0.95
_Z = float(scipy.special.ndtri((1 + _LEVEL) / 2))  # 1.96


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def points(self) -> tuple[float, float, float]:
        """Value, low and high in percentage points with two digits; a 0 has no minus sign."""
        value, low, high = (round(100 * end, 2) + 0.0 for end in dataclasses.astuple(self))
        return value, low, high


def proportion(hits: np.ndarray) -> Interval:
    """The mean of zeros and ones, (N,), with Wilson's interval, which is valid near 0 and 1 too."""
    test = scipy.stats.binomtest(int(np.sum(hits, dtype=np.float64)), len(hits))
    interval = test.proportion_ci(_LEVEL, method="wilson")
    return Interval(float(test.statistic), float(interval.low), float(interval.high))


def mean_of_proportions(hits: np.ndarray, group: np.ndarray) -> Interval:
    """The mean over groups of each group's proportion, each group with the same weight.

    The interval is Wilson's for an effective number of values (as in surveys; Dean and Pagano
    2015): the number of independent values whose mean would have the same variance. Variances of
    small groups are often estimated as 0, so that number is at most what it would be if the groups
    had one proportion. So the interval is rather too wide where they differ much.

    Args:
        hits: (N,) zeros and ones.
        group: (N,) int, the group of each.
    """
    sizes = np.bincount(group)
    means = np.bincount(group, hits)[sizes > 0] / sizes[sizes > 0]
    sizes = sizes[sizes > 0]
    value = float(means.mean())
    # Without bias; a group of one value has no variance of its own.
    corrected = means * (1 - means) * sizes / np.maximum(sizes - 1, 1)
    variance = np.sum(np.where(sizes > 1, corrected, value * (1 - value)) / sizes) / len(sizes) ** 2
    count = len(sizes) ** 2 / np.sum(1 / sizes)
    if variance > 0:
        count = min(count, value * (1 - value) / variance)
    center = (value + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half_width = (
        _Z * math.sqrt(value * (1 - value) / count + (_Z / (2 * count)) ** 2) / (1 + _Z**2 / count)
    )
    # At 0 and 1 an end equals the estimate, but for rounding.
    return Interval(value, min(center - half_width, value), max(center + half_width, value))


def paired_difference(differences: np.ndarray) -> Interval:
    """The mean of (N,) differences of hits, from -1 to 1, with an interval.

    Agresti and Min (2005) add half an image to each of the four combinations of hits: the interval
    of N + 2 differences, one half each of 1 and -1. So it has a width if no image differs.
    """
    count = len(differences) + 2
    value = float(np.mean(differences, dtype=np.float64))
    center = float(np.sum(differences, dtype=np.float64)) / count
    squares = float(np.sum(np.square(differences, dtype=np.float64))) + 1
    half_width = _Z * math.sqrt((squares / count - center**2) / count)
    return Interval(value, max(center - half_width, -1.0), min(center + half_width, 1.0))


def mean(values: np.ndarray) -> Interval:
    """The mean of (N,) values, with the interval of the central limit theorem."""
    value = float(np.mean(values, dtype=np.float64))
    deviation = float(np.std(values, dtype=np.float64, ddof=1)) if len(values) > 1 else math.inf
    half_width = _Z * deviation / math.sqrt(len(values))
    return Interval(value, value - half_width, value + half_width)
