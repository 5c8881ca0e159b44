"""Each figure of the report against what it is by definition, on made-up predictions."""

import math

import numpy as np
import pytest

from cnnrnn.evaluation import class_scores
from cnnrnn.evaluation import predictions as predictions_lib

CLASSES, IMAGES = 6, 400


def predictions_of(probabilities, label):
    top = np.argsort(-probabilities, axis=1, kind="stable")
    rows = np.arange(len(label))
    return predictions_lib.Predictions(
        label=label,
        top=top[:, :5].astype(np.int32),
        probability=probabilities.max(axis=1).astype(np.float32),
        loss=-np.log(probabilities[rows, label]).astype(np.float32),
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


def test_classes(predictions):
    names = tuple(f"class {i}" for i in range(CLASSES))
    found = class_scores.by_class(predictions, names)
    said, true = predictions.top[:, 0], predictions.label
    for label, score in enumerate(found):
        both = np.sum((said == label) & (true == label))
        assert score.support == np.sum(true == label)
        assert score.precision == pytest.approx(both / np.sum(said == label))
        assert score.recall == pytest.approx(both / score.support)
        assert score.f1 == pytest.approx(2 * both / (np.sum(said == label) + score.support))
        assert score.top5 == pytest.approx(predictions.top5[true == label].mean())


def test_a_class_without_images_has_no_figures(predictions):
    *_, without = class_scores.by_class(predictions, (*"abcdef", "without"))
    assert without.support == 0 and math.isnan(without.recall) and math.isnan(without.top5)


def test_confusions(predictions):
    matrix = class_scores.confusion_matrix(predictions, CLASSES)
    assert matrix.sum() == IMAGES and np.trace(matrix) == predictions.top1.sum()
    pairs = class_scores.most_confused(predictions, matrix, pairs=4, examples=2)
    assert [pair.count for pair in pairs] == sorted((p.count for p in pairs), reverse=True)
    off_diagonal = matrix[~np.eye(CLASSES, dtype=bool)]
    assert pairs[0].count == off_diagonal.max()
    for pair in pairs:
        assert pair.true != pair.predicted and matrix[pair.true, pair.predicted] == pair.count
        for row in pair.rows:
            assert predictions.label[row] == pair.true
            assert predictions.top[row, 0] == pair.predicted


def test_without_mistakes_there_is_nothing_to_show():
    perfect = predictions_of(np.eye(3)[[0, 1, 2]] * 0.9 + 0.03, np.arange(3))
    matrix = class_scores.confusion_matrix(perfect, 3)
    assert class_scores.most_confused(perfect, matrix, 5, 5) == []
    assert len(class_scores.surest_mistakes(perfect, 5)) == 0


def test_the_surest_mistakes_come_first(predictions):
    rows = class_scores.surest_mistakes(predictions, 10)
    confidence = predictions.probability[rows]
    assert not predictions.top1[rows].any() and (np.diff(confidence) <= 0).all()
    others = np.setdiff1d(np.flatnonzero(predictions.top1 == 0), rows)
    assert confidence.min() >= predictions.probability[others].max()


def test_calibration():
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 20_000)
    for shift in (0.0, 0.2):
        right = (rng.random(20_000) < confidence - shift).astype(int)
        probabilities = np.stack([1 - confidence, confidence], axis=1)
        found = predictions_of(probabilities, right)
        bins = class_scores.reliability(found)
        assert sum(bin.count for bin in bins) == 20_000
        assert all(bin.low <= bin.confidence <= bin.high for bin in bins)
        assert class_scores.expected_calibration_error(bins) == pytest.approx(shift, abs=0.02)
