"""Intervals cover the truth as often as they say."""

import numpy as np

from cnnrnn.evaluation import confidence_intervals


def test_intervals_hold_their_figure_and_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = {"share": 0, "mean": 0}
    for _ in range(2000):
        hits = (rng.random(100) < 0.9).astype(np.float32)
        losses = rng.exponential(2.0, 200)
        share, mean = confidence_intervals.share(hits), confidence_intervals.mean(losses)
        assert share.low <= share.value <= share.high and 0 <= share.low and share.high <= 1
        covered["share"] += share.low <= 0.9 <= share.high
        covered["mean"] += mean.low <= 2.0 <= mean.high
    assert all(0.92 < count / 2000 < 0.97 for count in covered.values())
    assert (
        confidence_intervals.share(np.ones(20)).low < 0.9
        and confidence_intervals.share(np.ones(20)).high == 1
    )
