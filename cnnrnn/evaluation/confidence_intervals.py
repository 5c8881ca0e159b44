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


def proportion(hits: np.ndarray) -> Interval:
    """The mean of zeros and ones, (N,), with Wilson's interval, which is valid near 0 and 1 too."""
    test = scipy.stats.binomtest(int(np.sum(hits, dtype=np.float64)), len(hits))
    interval = test.proportion_ci(_LEVEL, method="wilson")
    return Interval(float(test.statistic), float(interval.low), float(interval.high))


def mean(values: np.ndarray) -> Interval:
    """The mean of (N,) values, with the interval of the central limit theorem."""
    value = float(np.mean(values, dtype=np.float64))
    deviation = float(np.std(values, dtype=np.float64, ddof=1)) if len(values) > 1 else math.inf
    half_width = _Z * deviation / math.sqrt(len(values))
    return Interval(value, value - half_width, value + half_width)
