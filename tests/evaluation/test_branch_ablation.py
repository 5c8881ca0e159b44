"""Branch ablation: a constant branch costs nothing, one that depends on the image does."""

import numpy as np
import pytest

from cnnrnn.evaluation import branch_ablation, confidence_intervals

CLASSES, UNITS, IMAGES = 10, 40, 500


@pytest.fixture
def outputs():
    """CNN outputs that encode the class, RNN outputs that are almost constant; the dense layer."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, IMAGES)
    codes = rng.normal(size=(CLASSES, UNITS))
    cnn = codes[label] + rng.normal(0, 0.5, (IMAGES, UNITS))
    rnn = 0.88 + rng.normal(0, 0.005, (IMAGES, UNITS))
    return cnn, rnn, codes.T, np.zeros(CLASSES), label


def ablations(cnn, rnn, kernel, bias, label, fuse=np.multiply):
    return branch_ablation.ablations({"CNN": cnn, "RNN": rnn}, fuse, kernel, bias, label)


def test_ablations_are_named():
    outputs = np.ones((4, 3)), np.ones((4, 3)), np.ones((3, 2)), np.zeros(2), np.zeros(4, int)
    assert [ablation.name for ablation in ablations(*outputs)] == [
        "as trained",
        "RNN permuted across images",
        "RNN replaced by its mean",
        "CNN permuted across images",
        "CNN replaced by its mean",
    ]


def test_a_constant_branch_costs_nothing_and_an_informative_one_almost_everything(outputs):
    as_trained, *others = ablations(*outputs)
    assert as_trained.top1 > 0.95
    assert as_trained.top1_drop == confidence_intervals.Interval(0, 0, 0)
    for rnn in others[:2]:
        assert rnn.top1 == pytest.approx(as_trained.top1, abs=0.01)
        assert not rnn.is_significant
    for cnn in others[2:]:
        assert cnn.top1 < 0.25 and cnn.top5 < 0.75
        drop = cnn.top1_drop
        assert drop.value == pytest.approx(as_trained.top1 - cnn.top1)
        assert 0 < drop.low < drop.value < drop.high and cnn.is_significant


def test_a_small_drop_is_significant_because_it_is_paired_by_image(outputs):
    cnn, rnn, kernel, bias, label = outputs
    cnn = kernel.T[label] + np.random.default_rng(2).normal(0, 4, cnn.shape)
    _, permuted, *_ = ablations(cnn, rnn, kernel, bias, label)
    assert not permuted.is_significant
    slightly_informative = rnn + 0.05 * np.abs(kernel.T[label])
    as_trained, permuted, *_ = ablations(cnn, slightly_informative, kernel, bias, label)
    half_width = 1.96 * np.sqrt(as_trained.top1 * (1 - as_trained.top1) / len(label))
    assert permuted.is_significant and 0 < permuted.top1_drop.value < half_width


def test_the_verdict_is_of_top1_alone():
    """Either of two intervals would miss 0 by chance in more than 5 of 100 evaluations."""
    none, drop, gain = (
        confidence_intervals.Interval(value, value - 0.01, value + 0.01) for value in (0, 0.1, -0.1)
    )
    found = [
        branch_ablation.Ablation("RNN", 1.0, 0.5, 0.9, top1, top5)
        for top1, top5 in ((none, drop), (none, gain), (drop, none), (gain, drop))
    ]
    assert [each.is_significant for each in found] == [False, False, True, False]
    assert [each.is_gain for each in found] == [False, False, False, True]


def test_other_fusions_are_ablated_by_their_own_rule(outputs):
    """A sum: without the informative CNN, the constant RNN leaves chance."""
    cnn, rnn, kernel, bias, label = outputs
    as_trained, *_, cnn_mean = ablations(10 * cnn, rnn, kernel, bias, label, np.add)
    expected = branch_ablation.scores((10 * cnn + rnn) @ kernel + bias, label)
    assert as_trained.top1 == pytest.approx(expected[1].mean())
    assert cnn_mean.top1 < 0.25 < as_trained.top1


def test_statistics_of_a_constant_and_of_an_informative_branch(outputs):
    cnn, rnn, *_ = outputs
    constant, informative = branch_ablation.statistics(rnn), branch_ablation.statistics(cnn)
    assert constant.mean == constant.mean_abs == pytest.approx(0.88, abs=0.001)
    assert constant.std == pytest.approx(0.005, abs=0.0005)
    assert informative.std > 0.5


def test_a_tie_is_a_hit_only_if_the_label_has_the_lowest_index():
    logits = np.ones((7, 7), np.float32)
    loss, top1, top5 = branch_ablation.scores(logits, np.arange(7))
    np.testing.assert_allclose(loss, np.log(7), rtol=1e-6)
    np.testing.assert_array_equal(top1, [1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(top5, [1, 1, 1, 1, 1, 0, 0])
