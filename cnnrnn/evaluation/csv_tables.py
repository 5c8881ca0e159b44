"""The report's numbers as CSV files, and per-class accuracy as per_label.tsv.

A value that is not defined, such as the recall of a class without images, is an empty cell.
"""

import csv
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cnnrnn.datasets import splits
from cnnrnn.evaluation import confidence_intervals, html_report
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.system import atomic_files
from cnnrnn.system import text as text_lib

_Table = Iterable[Sequence[Any]]


def write(
    folder: pathlib.Path,
    content: html_report.ReportContent,
    matrix: np.ndarray,
    split: splits.Split,
    predictions: predictions_lib.Predictions,
) -> None:
    """Writes all tables.

    Args:
        folder: where to write them.
        content: of the report.
        matrix: confusion matrix, (classes, classes).
        split: the split that was evaluated.
        predictions: of its images.
    """
    names = [text_lib.one_line(score.name) for score in content.classes]
    _write(folder / "per_label.tsv", _per_label(names, content), "excel-tab")
    tables = {
        "figures": _metrics(content),
        "confusion": _confusion(names, matrix),
        "branches": _ablations(content),
        "branch_outputs": _branch_outputs(content),
        "calibration": _calibration(content),
        "predictions": _predictions(names, split, predictions),
    }
    for name, table in tables.items():
        _write(folder / f"{name}.csv", table)


def _per_label(names: list[str], content: html_report.ReportContent) -> _Table:
    return [
        ("label", "top-1", "top-5", "precision", "f1", "images"),
        *(
            (name, *map(_number, (s.recall, s.top5, s.precision, s.f1)), s.support)
            for name, s in zip(names, content.classes, strict=True)
        ),
    ]


def _confusion(names: list[str], matrix: np.ndarray) -> _Table:
    """Line by line: with 10,000 classes, all cells as Python objects would take gigabytes."""
    yield ("true", *names)
    for name, row in zip(names, matrix, strict=True):
        yield (name, *row.tolist())


def _metrics(content: html_report.ReportContent) -> _Table:
    return [
        ("metric", "value", "low", "high"),
        *((name, *_interval(getattr(content, name))) for name in ("loss", "top1", "top5")),
        ("macro_recall", *_interval(content.macro.recall)),
        ("macro_top5", *_interval(content.macro.top5)),
        ("macro_precision", _number(content.macro.precision), "", ""),
        ("macro_f1", _number(content.macro.f1), "", ""),
        ("calibration_error", _number(content.calibration_error), "", ""),
    ]


def _ablations(content: html_report.ReportContent) -> _Table:
    drops = [f"{name}_drop{end}" for name in ("top1", "top5") for end in ("", "_low", "_high")]
    return [
        ("ablation", "loss", "top1", "top5", *drops),
        *(
            (a.name, *map(_number, (a.loss, a.top1, a.top5)), *_interval(a.top1_drop),
             *_interval(a.top5_drop))
            for a in content.ablations
        ),
    ]  # fmt: skip


def _branch_outputs(content: html_report.ReportContent) -> _Table:
    return [
        ("branch", "mean", "mean_abs", "std"),
        *(
            (name, *map(_number, (outputs.mean, outputs.mean_abs, outputs.std)))
            for name, outputs in (("CNN", content.cnn), ("RNN", content.rnn))
            if outputs is not None
        ),
    ]


def _calibration(content: html_report.ReportContent) -> _Table:
    return [
        ("low", "high", "images", "confidence", "accuracy"),
        *(
            (*map(_number, (b.low, b.high)), b.count, *map(_number, (b.confidence, b.accuracy)))
            for b in content.bins
        ),
    ]


def _predictions(
    names: list[str], split: splits.Split, predictions: predictions_lib.Predictions
) -> _Table:
    """One line per image; the path is empty if the images are not files of their own."""
    return [
        ("index", "path", "true", "predicted", "probability", "loss", "in_top5"),
        *(
            (index, text_lib.printable(split.path(index)), names[true], names[top[0]],
             _number(probability), _number(loss), int(top5))
            for index, (true, top, probability, loss, top5) in enumerate(
                zip(predictions.label, predictions.top, predictions.probability, predictions.loss,
                    predictions.top5, strict=True)
            )
        ),
    ]  # fmt: skip


def _interval(interval: confidence_intervals.Interval) -> tuple[str, str, str]:
    return _number(interval.value), _number(interval.low), _number(interval.high)


def _number(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""


def _write(path: pathlib.Path, table: _Table, dialect: str = "excel") -> None:
    with (
        atomic_files.replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file, dialect, lineterminator="\n").writerows(table)
