"""Learning rate range test: training steps at rates that grow exponentially (Smith, 2015).

At low rates the loss stays, then it falls, and at high rates it diverges. The losses of single
batches are noisy, so they are smoothed by an exponential moving average without bias, as fastai's
rate finder does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cnnrnn.training import steps

STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0  # of the rates
_DECAY = 0.98  # of the moving average
_DIVERGED = 4.0  # times the lowest smoothed loss
_WINDOW = 10  # steps over which the slope is measured: the rate grows sixfold
_FLAT = 1e-6  # a slope that may be rounding
_MARGIN = 10.0  # between the rate of the lowest loss, beyond which it diverges, and the suggestion


@dataclasses.dataclass(frozen=True)
class Point:
    """One step: its learning rate, its loss, and the smoothed loss up to it."""

    rate: float
    loss: float
    smoothed: float


def search(
    train_step: steps.TrainStep,
    set_rate: Callable[[float], None],
    batches: Iterator[steps.Batch],
) -> Iterator[Point]:
    """Trains at growing rates until the smoothed loss has diverged or a loss is not finite.

    Args:
        train_step: from `steps.make_train_step`; it changes the weights.
        set_rate: sets the learning rate of the next step.
        batches: of training, at least STEPS.

    Yields:
        The point of each step, STEPS of them at most.
    """
    average, lowest = 0.0, np.inf
    for number, rate in enumerate(np.geomspace(LOWEST, HIGHEST, STEPS).tolist(), 1):
        set_rate(rate)
        sums, non_finite = train_step(next(batches))
        loss = float(sums[0]) / float(sums[3])
        if not np.isfinite(loss) or float(non_finite) > 0:
            return
        average = _DECAY * average + (1 - _DECAY) * loss
        smoothed = average / (1 - _DECAY**number)
        yield Point(rate, loss, smoothed)
        if number < _WINDOW:  # the average of a few losses is as noisy as they are
            continue
        lowest = min(lowest, smoothed)
        if smoothed > _DIVERGED * lowest:
            return


def suggestion(points: Sequence[Point]) -> float | None:
    """The learning rate at which the loss falls fastest, or a lower one with a margin.

    fastai calls it "steep". The slope is that of a straight line through the losses of _WINDOW
    steps over the logarithm of their rates: the gradient of the smoothed loss lags behind, and that
    of single losses is noise. It is not more than a tenth of the rate of the lowest smoothed loss,
    near which training is unstable.

    Returns:
        None if the loss did not fall.
    """
    smoothed = range(_WINDOW - 1, len(points))  # before them, the average is noise, too
    lowest = min(smoothed, key=lambda i: points[i].smoothed, default=0)
    windows = [points[start : start + _WINDOW] for start in range(lowest + 2 - _WINDOW)]
    slopes = [_slope(window) for window in windows]
    highest = points[lowest].rate / _MARGIN if points else 0.0
    if highest < LOWEST or min(slopes) > -_FLAT:
        return None
    steepest = windows[int(np.argmin(slopes))]
    middle = float(np.sqrt(steepest[0].rate * steepest[-1].rate))
    return min(middle, highest)


def _slope(points: Sequence[Point]) -> float:
    """The slope of the losses over the logarithm of the rates, by least squares."""
    rates = np.log([point.rate for point in points])
    return float(np.polyfit(rates, [point.loss for point in points], 1)[0])
