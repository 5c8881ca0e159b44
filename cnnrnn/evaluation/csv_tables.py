"""The report's figures as tables for other programs: CSV, and the labels' TSV."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import confidence_intervals, html_report
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.system import atomic_files
from cnnrnn.system import text as text_lib

_Rows = list[tuple[Any, ...]]


def write(
    folder: pathlib.Path,
    content: html_report.Content,
    matrix: np.ndarray,
    split: dataset_lib.Split,
    predictions: predictions_lib.Predictions,
) -> None:
    """Writes all tables.

    Args:
        folder: where to.
        content: what the page shows.
        matrix: the confusion matrix, (classes, classes).
        split: what was evaluated.
        predictions: of its images.
    """
    names = [text_lib.one_line(score.name) for score in content.classes]
    labels = [
        (name, _figure(score.recall), _figure(score.top5))
        for name, score in zip(names, content.classes, strict=True)
    ]
    _write(folder / "per_label.tsv", [("label", "top-1", "top-5"), *labels], "excel-tab")
    tables = {
        "figures": _figures(content),
        "classes": _classes(names, content),
        "confusion": [("true", *names), *((n, *row) for n, row in zip(names, matrix, strict=True))],
        "branches": _branches(content),
        "branch_outputs": _branch_outputs(content),
        "calibration": _calibration(content),
        "predictions": _predictions(names, split, predictions),
    }
    for name, rows in tables.items():
        _write(folder / f"{name}.csv", rows)


def _figures(content: html_report.Content) -> _Rows:
    return [
        ("figure", "value", "low", "high"),
        *((name, *_ends(getattr(content, name))) for name in ("loss", "top1", "top5")),
        ("calibration_error", _figure(content.calibration_error), "", ""),
    ]


def _classes(names: list[str], content: html_report.Content) -> _Rows:
    return [
        ("class", "images", "top-1", "top-5", "precision", "f1"),
        *(
            (name, s.support, *map(_figure, (s.recall, s.top5, s.precision, s.f1)))
            for name, s in zip(names, content.classes, strict=True)
        ),
    ]


def _branches(content: html_report.Content) -> _Rows:
    costs = [f"{name}_{part}" for name in ("top1", "top5") for part in ("cost", "low", "high")]
    return [
        ("branches", "loss", "top-1", "top-5", *costs),
        *(
            (t.name, *map(_figure, (t.loss, t.top1, t.top5)), *_ends(t.top1_cost),
             *_ends(t.top5_cost))
            for t in content.trials
        ),
    ]  # fmt: skip


def _branch_outputs(content: html_report.Content) -> _Rows:
    return [
        ("branch", "mean", "magnitude", "spread"),
        *(
            (name, *map(_figure, (branch.mean, branch.magnitude, branch.spread)))
            for name, branch in (("CNN", content.cnn), ("RNN", content.rnn))
        ),
    ]


def _calibration(content: html_report.Content) -> _Rows:
    return [
        ("low", "high", "images", "confidence", "accuracy"),
        *(
            (*map(_figure, (b.low, b.high)), b.count, *map(_figure, (b.confidence, b.accuracy)))
            for b in content.bins
        ),
    ]


def _predictions(
    names: list[str], split: dataset_lib.Split, predictions: predictions_lib.Predictions
) -> _Rows:
    """A row for each image; its path is empty where images are no files of their own."""
    return [
        ("index", "path", "true", "predicted", "probability", "loss", "in_top5"),
        *(
            (row, text_lib.printable(split.path(row)), names[true], names[top[0]],
             _figure(probability), _figure(loss), int(top5))
            for row, (true, top, probability, loss, top5) in enumerate(
                zip(predictions.label, predictions.top, predictions.probability, predictions.loss,
                    predictions.top5, strict=True)
            )
        ),
    ]  # fmt: skip


def _ends(interval: confidence_intervals.Interval) -> tuple[str, str, str]:
    return _figure(interval.value), _figure(interval.low), _figure(interval.high)


def _figure(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""


def _write(path: pathlib.Path, rows: Sequence[Sequence[Any]], dialect: str = "excel") -> None:
    text = io.StringIO()
    csv.writer(text, dialect, lineterminator="\n").writerows(rows)
    atomic_files.write_text(path, text.getvalue())
