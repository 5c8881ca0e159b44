"""The branch that says nothing is told from the one that does."""

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import metrics
from cnnrnn.evaluation import branch_ablation

CLASSES, UNITS, IMAGES = 10, 40, 500


@pytest.fixture
def outputs():
    """A CNN that knows the class, an RNN that is a constant gain with next to no spread."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, IMAGES)
    codes = rng.normal(size=(CLASSES, UNITS))
    cnn = codes[label] + rng.normal(0, 0.5, (IMAGES, UNITS))
    rnn = 0.88 + rng.normal(0, 0.005, (IMAGES, UNITS))
    return cnn, rnn, codes.T, np.zeros(CLASSES), label


def test_an_idle_branch_costs_nothing_and_a_working_one_everything(outputs):
    as_trained, rnn_dealt, rnn_mean, cnn_dealt, cnn_mean = branch_ablation.trials(*outputs)
    assert as_trained.top1 > 0.95
    for trial in (rnn_dealt, rnn_mean):
        assert trial.top1 == pytest.approx(as_trained.top1, abs=0.01)
        assert not trial.is_significant
    for trial in (cnn_dealt, cnn_mean):
        assert trial.top1 < 0.25 and trial.top5 < 0.75
        cost = trial.top1_cost
        assert cost.value == pytest.approx(as_trained.top1 - trial.top1)
        assert 0 < cost.low < cost.value < cost.high and trial.is_significant


def test_what_costs_little_is_told_from_what_costs_nothing(outputs):
    """By the images that change, not by the noise of the figure itself."""
    cnn, rnn, kernel, bias, label = outputs
    cnn = kernel.T[label] + np.random.default_rng(2).normal(0, 4, cnn.shape)
    _, dealt, *_ = branch_ablation.trials(cnn, rnn, kernel, bias, label)
    assert not dealt.is_significant
    hint = rnn + 0.05 * np.abs(kernel.T[label])
    as_trained, dealt, *_ = branch_ablation.trials(cnn, hint, kernel, bias, label)
    half = 1.96 * np.sqrt(as_trained.top1 * (1 - as_trained.top1) / len(label))
    assert dealt.is_significant and 0 < dealt.top1_cost.value < half


def test_the_spread_tells_a_constant_from_what_depends_on_the_image(outputs):
    cnn, rnn, *_ = outputs
    idle, working = branch_ablation.describe(rnn), branch_ablation.describe(cnn)
    assert idle.mean == pytest.approx(0.88, abs=0.001)
    assert idle.spread == pytest.approx(0.005, abs=0.0005)
    assert working.spread > 0.5


def test_figures_are_those_of_the_program():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(60, 8)).astype(np.float32)
    label = rng.integers(0, 8, 60)
    scores = metrics.per_example(tf.constant(logits), tf.constant(label))
    for name, values in zip(
        ("loss", "top1", "top5"), branch_ablation._figures(logits, label), strict=True
    ):
        np.testing.assert_allclose(values, scores[name], atol=1e-5)
