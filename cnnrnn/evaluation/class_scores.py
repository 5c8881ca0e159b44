"""Per-class scores, confused classes, confident mistakes and calibration."""

from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np
import sklearn.metrics

from cnnrnn.evaluation import confidence_intervals

if typing.TYPE_CHECKING:  # at run time this module needs no TensorFlow
    from cnnrnn.evaluation import predictions as predictions_lib

BINS = 15  # of confidence, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """Scores of one class, from 0 to 1; NaN where the denominator is 0.

    Attributes:
        name: class name.
        support: number of images of the class.
        precision: of the images predicted as the class, the proportion that are.
        recall: of the images of the class, the proportion predicted as it: its top-1 accuracy.
        f1: harmonic mean of precision and recall.
        top5: top-5 accuracy.
    """

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    top5: float


@dataclasses.dataclass(frozen=True)
class MacroScores:
    """Means over the classes that have images, each with the same weight however many it has.

    Attributes:
        classes: number of these classes.
        recall: also called balanced accuracy.
        top5: of the top-5 accuracy of each class.
        precision: a class that is never predicted counts as 0.
        f1: of the F1 of each class.
    """

    classes: int
    recall: confidence_intervals.Interval
    top5: confidence_intervals.Interval
    precision: float
    f1: float

    def __str__(self) -> str:
        return (
            f"recall {self.recall.value:.2%}  precision {self.precision:.2%}  F1 {self.f1:.2%}  "
            f"top-5 {self.top5.value:.2%}"
        )


@dataclasses.dataclass(frozen=True)
class Confusion:
    """A pair of classes that are confused.

    Attributes:
        true: true class.
        predicted: predicted class.
        count: number of images.
        indices: of the most confident ones, most confident first.
    """

    true: int
    predicted: int
    count: int
    indices: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in (`low`, `high`], with their means."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def by_class(predictions: predictions_lib.Predictions, names: tuple[str, ...]) -> list[ClassScore]:
    """Scores each class, in the order of `names`."""
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
            float(np.mean(top5[label], dtype=np.float64)) if support[label] else math.nan,
        )
        for label, name in enumerate(names)
    ]


def macro(predictions: predictions_lib.Predictions, scores: list[ClassScore]) -> MacroScores:
    """Averages the scores of the classes.

    Recall and top-5 of a class are proportions of its images, which are independent of those of
    other classes; so their means have intervals. Precision and F1 also depend on the images of the
    other classes, and have none.

    Args:
        predictions: of all images.
        scores: from `by_class`.
    """
    present = [score for score in scores if score.support]
    label = predictions.label
    return MacroScores(
        classes=len(present),
        recall=confidence_intervals.mean_of_proportions(predictions.top1, label),
        top5=confidence_intervals.mean_of_proportions(predictions.top5, label),
        precision=float(np.mean([np.nan_to_num(score.precision) for score in present])),
        f1=float(np.mean([score.f1 for score in present])),
    )


def confusion_matrix(predictions: predictions_lib.Predictions, classes: int) -> np.ndarray:
    """Counts, (classes, classes): a row for each true class, a column for each predicted one."""
    return sklearn.metrics.confusion_matrix(
        predictions.label, predictions.top[:, 0], labels=np.arange(classes)
    )


def most_confused(
    predictions: predictions_lib.Predictions, matrix: np.ndarray, pairs: int, examples: int
) -> list[Confusion]:
    """Finds the pairs of classes that are confused most often.

    Args:
        predictions: of all images.
        matrix: their confusion matrix, (classes, classes).
        pairs: the most pairs to return.
        examples: the most images of each pair.
    """
    mistakes = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    confusions = []
    for cell in np.argsort(-mistakes, axis=None, kind="stable")[:pairs]:
        true, predicted = map(int, np.unravel_index(cell, mistakes.shape))
        count = int(mistakes[true, predicted])
        if count == 0:
            break
        indices = np.flatnonzero((predictions.label == true) & (predictions.top[:, 0] == predicted))
        shown = _most_confident(predictions, indices, examples)
        confusions.append(Confusion(true, predicted, count, tuple(map(int, shown))))
    return confusions


def most_confident_mistakes(predictions: predictions_lib.Predictions, count: int) -> np.ndarray:
    """Indices of the `count` wrong predictions of the highest confidence, highest first."""
    return _most_confident(predictions, np.flatnonzero(predictions.top1 == 0), count)


def reliability(predictions: predictions_lib.Predictions) -> list[Bin]:
    """Confidence and accuracy in `BINS` bins of equal width, without the empty ones."""
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.clip(np.searchsorted(edges, predictions.probability, side="left") - 1, 0, BINS - 1)
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(np.sum(bin_of == i)),
            float(np.mean(predictions.probability[bin_of == i], dtype=np.float64)),
            float(np.mean(predictions.top1[bin_of == i], dtype=np.float64)),
        )
        for i in range(BINS)
        if np.any(bin_of == i)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean over all images of |confidence - accuracy| of their bin, from 0 to 1."""
    total = sum(bin.count for bin in bins)
    return sum(bin.count * abs(bin.confidence - bin.accuracy) for bin in bins) / total


def _most_confident(
    predictions: predictions_lib.Predictions, indices: np.ndarray, count: int
) -> np.ndarray:
    return indices[np.argsort(-predictions.probability[indices], kind="stable")][:count]
