"""What an evaluation says, beyond three figures: classes, confusions, calibration."""

import dataclasses
import math

import numpy as np
import sklearn.metrics

from cnnrnn.evaluation import predictions as predictions_lib

BINS = 15  # of confidence, as in Guo et al. 2017, where ECE comes from


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """One class; shares from 0 to 1, NaN where there is nothing to take a share of."""

    name: str
    support: int
    precision: float
    recall: float  # of the images of the class; its top-1
    f1: float
    top5: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """`count` images of `true` were taken for `predicted`; `rows` are the most confident."""

    true: int
    predicted: int
    count: int
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Bin:
    """The images whose confidence lies between two bounds."""

    low: float
    high: float
    count: int
    confidence: float  # mean
    accuracy: float


def by_class(predictions: predictions_lib.Predictions, names: tuple[str, ...]) -> list[ClassScore]:
    """One score a class, in the order of the names."""
    labels = np.arange(len(names))
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        predictions.label, predictions.top[:, 0], labels=labels, zero_division=np.nan
    )
    top5 = [predictions.top5[predictions.label == label] for label in labels]
    return [
        ClassScore(
            name,
            int(support[label]),
            float(precision[label]),
            float(recall[label]) if support[label] else math.nan,
            float(f1[label]),
            float(top5[label].mean()) if support[label] else math.nan,
        )
        for label, name in enumerate(names)
    ]


def confusion_matrix(predictions: predictions_lib.Predictions, classes: int) -> np.ndarray:
    """(classes, classes) counts: a row for each true class, a column for each predicted."""
    return sklearn.metrics.confusion_matrix(
        predictions.label, predictions.top[:, 0], labels=np.arange(classes)
    )


def most_confused(
    predictions: predictions_lib.Predictions, matrix: np.ndarray, pairs: int, examples: int
) -> list[Confusion]:
    """The pairs of classes most often taken for one another, each with its surest examples."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    found = []
    for index in np.argsort(-wrong, axis=None, kind="stable")[:pairs]:
        true, predicted = map(int, np.unravel_index(index, wrong.shape))
        if wrong[true, predicted] == 0:
            break
        rows = np.flatnonzero((predictions.label == true) & (predictions.top[:, 0] == predicted))
        surest = rows[np.argsort(-predictions.probability[rows], kind="stable")][:examples]
        found.append(
            Confusion(true, predicted, int(wrong[true, predicted]), tuple(map(int, surest)))
        )
    return found


def surest_mistakes(predictions: predictions_lib.Predictions, count: int) -> np.ndarray:
    """The rows of the mistakes of the highest confidence, highest first."""
    wrong = np.flatnonzero(predictions.top1 == 0)
    return wrong[np.argsort(-predictions.probability[wrong], kind="stable")][:count]


def reliability(predictions: predictions_lib.Predictions) -> list[Bin]:
    """Confidence against accuracy, in bins of equal width; those without images are left out."""
    edges = np.linspace(0, 1, BINS + 1)
    index = np.clip(np.searchsorted(edges, predictions.probability, side="left") - 1, 0, BINS - 1)
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(np.sum(index == i)),
            float(np.mean(predictions.probability[index == i], dtype=np.float64)),
            float(np.mean(predictions.top1[index == i], dtype=np.float64)),
        )
        for i in range(BINS)
        if np.any(index == i)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """How far confidence and accuracy lie apart, from 0 to 1, on average over the images."""
    total = sum(bin.count for bin in bins)
    return sum(bin.count * abs(bin.confidence - bin.accuracy) for bin in bins) / total
