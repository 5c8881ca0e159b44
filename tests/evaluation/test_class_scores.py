"""Class scores against their definitions, on random predictions."""

import math
import types

import numpy as np
import pytest
import sklearn.metrics

from cnnrnn.evaluation import class_scores

CLASSES, IMAGES = 6, 400


def predictions_of(probabilities, label):
    """The fields of `predictions.Predictions` that scores are computed from, without TensorFlow."""
    top = np.argsort(-probabilities, axis=1, kind="stable")
    return types.SimpleNamespace(
        label=label,
        top=top[:, :5].astype(np.int32),
        probability=probabilities.max(axis=1).astype(np.float32),
        top1=(top[:, 0] == label).astype(np.float32),
        top5=(top[:, :5] == label[:, None]).any(axis=1).astype(np.float32),
    )


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, IMAGES)
    logits = rng.normal(size=(IMAGES, CLASSES)) + 1.5 * np.eye(CLASSES)[label]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return predictions_of(probabilities, label)


def test_scores_of_each_class(predictions):
    names = tuple(f"class {i}" for i in range(CLASSES))
    predicted, true = predictions.top[:, 0], predictions.label
    for label, score in enumerate(class_scores.by_class(predictions, names)):
        both = np.sum((predicted == label) & (true == label))
        assert score.name == names[label]
        assert score.support == np.sum(true == label)
        assert score.precision == pytest.approx(both / np.sum(predicted == label))
        assert score.recall == pytest.approx(both / score.support)
        assert score.f1 == pytest.approx(2 * both / (np.sum(predicted == label) + score.support))
        assert score.top5 == pytest.approx(predictions.top5[true == label].mean())


def test_recall_is_the_top1_accuracy_of_the_class(predictions):
    for label, score in enumerate(class_scores.by_class(predictions, tuple("abcdef"))):
        assert score.recall == predictions.top1[predictions.label == label].mean(dtype=np.float64)


def test_the_scores_of_a_class_without_images_are_nan(predictions):
    *_, empty = class_scores.by_class(predictions, (*"abcdef", "empty"))
    assert empty.support == 0 and math.isnan(empty.recall) and math.isnan(empty.top5)


def test_macro_scores_are_means_over_the_classes_with_images():
    rng = np.random.default_rng(1)
    label = rng.choice(8, 300, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.02, 0, 0])
    logits = rng.normal(size=(300, 8)) + 1.5 * np.eye(8)[label]
    logits[:, 5] = -9  # has images, but is never predicted
    logits[:, 7] = -9
    predictions = predictions_of(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), label)
    predicted, present = predictions.top[:, 0], np.unique(label)
    assert 6 in predicted and 6 not in label and 5 in label and 5 not in predicted
    macro = class_scores.macro(predictions, class_scores.by_class(predictions, tuple("abcdefgh")))
    expected = sklearn.metrics.precision_recall_fscore_support(
        label, predicted, labels=present, average="macro", zero_division=0
    )
    assert macro.classes == len(present) == 6
    assert (macro.precision, macro.recall.value, macro.f1) == pytest.approx(expected[:3])
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = sklearn.metrics.balanced_accuracy_score(label, predicted)
    assert macro.recall.value == pytest.approx(balanced)
    assert macro.recall.value != pytest.approx(predictions.top1.mean(), abs=0.05)
    by_class = [predictions.top5[label == value].mean() for value in present]
    assert macro.top5.value == pytest.approx(np.mean(by_class))
    assert str(macro).startswith(f"recall {balanced:.2%}  precision ")


def test_the_most_confused_pairs(predictions):
    matrix = class_scores.confusion_matrix(predictions, CLASSES)
    assert matrix.sum() == IMAGES and np.trace(matrix) == predictions.top1.sum()
    pairs = class_scores.most_confused(predictions, matrix, pairs=4, examples=2)
    assert [pair.count for pair in pairs] == sorted((p.count for p in pairs), reverse=True)
    off_diagonal = matrix[~np.eye(CLASSES, dtype=bool)]
    assert pairs[0].count == off_diagonal.max()
    for pair in pairs:
        assert pair.true != pair.predicted and matrix[pair.true, pair.predicted] == pair.count
        for index in pair.indices:
            assert predictions.label[index] == pair.true
            assert predictions.top[index, 0] == pair.predicted


def test_perfect_predictions_have_no_confusions_and_no_mistakes():
    perfect = predictions_of(np.eye(3)[[0, 1, 2]] * 0.9 + 0.03, np.arange(3))
    matrix = class_scores.confusion_matrix(perfect, 3)
    assert class_scores.most_confused(perfect, matrix, 5, 5) == []
    assert len(class_scores.most_confident_mistakes(perfect, 5)) == 0


def test_mistakes_are_ordered_by_confidence(predictions):
    indices = class_scores.most_confident_mistakes(predictions, 10)
    confidence = predictions.probability[indices]
    assert not predictions.top1[indices].any() and (np.diff(confidence) <= 0).all()
    others = np.setdiff1d(np.flatnonzero(predictions.top1 == 0), indices)
    assert confidence.min() >= predictions.probability[others].max()


@pytest.mark.parametrize("overconfidence", [0.0, 0.2])
def test_the_calibration_error_is_the_overconfidence(overconfidence):
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 20_000)
    label = (rng.random(20_000) < confidence - overconfidence).astype(int)
    predictions = predictions_of(np.stack([1 - confidence, confidence], axis=1), label)
    bins = class_scores.reliability(predictions)
    assert sum(bin.count for bin in bins) == 20_000
    assert all(bin.low <= bin.confidence <= bin.high for bin in bins)
    error = class_scores.expected_calibration_error(bins)
    assert error == pytest.approx(overconfidence, abs=0.02)
