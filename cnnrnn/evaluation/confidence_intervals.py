"""Figures with 95 % confidence intervals."""

import dataclasses
import math

import numpy as np

_Z = 1.959964  # of a normal distribution: 95 % lie within as many standard deviations


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def share(hits: np.ndarray) -> Interval:
    """A mean of zeros and ones, (N,), with Wilson's interval, which holds near 0 and 1 too."""
    count, value = len(hits), float(np.mean(hits, dtype=np.float64))
    middle = value + _Z**2 / (2 * count)
    half = _Z * math.sqrt(value * (1 - value) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return Interval(value, max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0))


def mean(values: np.ndarray) -> Interval:
    """A mean of (N,) with the interval of the central limit theorem."""
    value = float(np.mean(values, dtype=np.float64))
    spread = float(np.std(values, dtype=np.float64, ddof=1)) if len(values) > 1 else math.inf
    half = _Z * spread / math.sqrt(len(values))
    return Interval(value, value - half, value + half)
