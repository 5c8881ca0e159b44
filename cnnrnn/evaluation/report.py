"""The files that an evaluation leaves: results.json, report.html, tables and charts."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.evaluation import (
    branch_ablation,
    charts,
    class_scores,
    confidence_intervals,
    csv_tables,
    html_report,
    tensorboard,
)
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import attribution
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, event_files, run_folder
from cnnrnn.system import atomic_files
from cnnrnn.system import text as text_lib

_PAIRS, _EXAMPLES, _MISTAKES = 12, 4, 24


def write(
    folder: run_folder.RunFolder,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    best: best_weights.Best,
    network: network_lib.Network,
    predictions: predictions_lib.Predictions,
) -> None:
    """Writes everything; results.json last, so that it stands for the rest.

    Args:
        folder: of the run.
        config: for the images' views.
        data: what was evaluated.
        best: the weights that were.
        network: filled with them.
        predictions: with the branches' outputs.
    """
    names = data.class_names
    classes = class_scores.by_class(predictions, names)
    matrix = class_scores.confusion_matrix(predictions, len(names))
    bins = class_scores.reliability(predictions)
    silenced = branch_ablation.trials(
        predictions.cnn,
        predictions.rnn,
        *network.fusion.get_layer("logits").get_weights(),
        predictions.label,
    )
    images = {
        "confusion": charts.confusion_chart(list(names), matrix),
        "reliability": charts.reliability_chart(
            *(np.array([getattr(b, name) for b in bins]) for name in
              ("confidence", "accuracy", "count"))
        ),
        **_label_charts(list(names), predictions),
        **_curves(folder),
    }  # fmt: skip
    content = html_report.Content(
        title=f"{data.name}: {best.phase}",
        subtitle=f"best weights of {best.phase}, epoch {best.epoch}, on {len(data.validation):,} "
        f"validation images in {len(names)} classes; data {data.fingerprint[:12]}",
        loss=confidence_intervals.mean(predictions.loss),
        top1=confidence_intervals.share(predictions.top1),
        top5=confidence_intervals.share(predictions.top5),
        chance=1 / len(names),
        classes=classes,
        confusions=_confusions(data, config, predictions, matrix),
        mistakes=_mistakes(data, config, predictions, network),
        calibration_error=class_scores.expected_calibration_error(bins),
        bins=bins,
        cnn=branch_ablation.describe(predictions.cnn),
        rnn=branch_ablation.describe(predictions.rnn),
        trials=silenced,
        images=images,
        manifest=folder.manifest(),
    )
    for name in ("top1", "top5"):
        with atomic_files.replacing(folder.evaluation / f"{name}_by_label.png") as temporary:
            temporary.write_bytes(images[name])
    csv_tables.write(folder.evaluation, content, matrix, data.validation, predictions)
    atomic_files.write_text(folder.evaluation / "report.html", html_report.render(content))
    results = _results(data, best, content, predictions)
    tensorboard.write(
        folder.events(phases.BY_NAME[best.phase], "evaluation"), best.epoch, results, images
    )
    atomic_files.write_json(folder.results, results)


def _results(
    data: dataset_lib.Dataset,
    best: best_weights.Best,
    content: html_report.Content,
    predictions: predictions_lib.Predictions,
) -> dict[str, Any]:
    """The figures as JSON; one that does not exist, or an end of an interval, is null."""
    figures = {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "weights": best.weights.name,
        "phase": best.phase,
        "epoch": best.epoch,
        "validation": predictions.means.to_json(),
        "intervals_95": {
            name: [getattr(content, name).low, getattr(content, name).high]
            for name in ("loss", "top1", "top5")
        },
        "calibration_error": content.calibration_error,
        "branches": {
            "cnn": dataclasses.asdict(content.cnn),
            "rnn": dataclasses.asdict(content.rnn),
            "silenced": [dataclasses.asdict(trial) for trial in content.trials],
            "verdict": html_report.verdict(content),
        },
    }
    return _finite(figures)


def _finite(value: Any) -> Any:
    """JSON has no infinity: with one image, an interval has no ends."""
    if isinstance(value, dict):
        return {name: _finite(nested) for name, nested in value.items()}
    if isinstance(value, list):
        return [_finite(nested) for nested in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _label_charts(names: list[str], predictions: predictions_lib.Predictions) -> dict[str, bytes]:
    drawn = {}
    for name in ("top1", "top5"):
        accuracy = mean_by_label(getattr(predictions, name), predictions.label, len(names))
        drawn[name] = charts.label_chart(names, accuracy, f"{name.replace('top', 'Top-')} by label")
    return drawn


def _curves(folder: run_folder.RunFolder) -> dict[str, bytes]:
    """A chart for each phase that has been trained."""
    drawn = {}
    for name, phase in phases.BY_NAME.items():
        points = {
            split: event_files.scalars(folder.events(phase, split))
            for split in ("train", "validation")
        }
        if any(points.values()):
            drawn[f"curves of {name}"] = charts.curves_chart(points, name)
    return drawn


def _confusions(
    data: dataset_lib.Dataset,
    config: config_lib.Config,
    predictions: predictions_lib.Predictions,
    matrix: np.ndarray,
) -> list[dict[str, Any]]:
    return [
        {
            "true": data.class_names[pair.true],
            "predicted": data.class_names[pair.predicted],
            "count": pair.count,
            "of": int(matrix[pair.true].sum()),
            "images": _shown(data, config, predictions, pair.rows),
        }
        for pair in class_scores.most_confused(predictions, matrix, _PAIRS, _EXAMPLES)
    ]


def _mistakes(
    data: dataset_lib.Dataset,
    config: config_lib.Config,
    predictions: predictions_lib.Predictions,
    network: network_lib.Network,
) -> list[dict[str, Any]]:
    """The surest mistakes, with where each branch found the class that it is not."""
    rows = class_scores.surest_mistakes(predictions, _MISTAKES)

    def draw(views: dict[str, np.ndarray]) -> list[bytes]:
        found = attribution.Explainer(network).explain(views, predictions.top[rows, :1])
        return [
            charts.explained_thumbnail(image, maps.cam, maps.timesteps)
            for image, (maps,) in zip(views["image"], found, strict=True)
        ]

    return _shown(data, config, predictions, rows, draw)


def _thumbnails(views: dict[str, np.ndarray]) -> list[bytes]:
    return [charts.thumbnail(image) for image in views["image"]]


def _shown(
    data: dataset_lib.Dataset,
    config: config_lib.Config,
    predictions: predictions_lib.Predictions,
    rows: Sequence[int],
    draw: Callable[[dict[str, np.ndarray]], list[bytes]] = _thumbnails,
) -> list[dict[str, Any]]:
    """Some validation images for the page; `draw` makes JPEGs of what the branches see."""
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        return []
    views = next(
        input_pipeline.evaluation(
            data.validation.take(rows),
            batch_size=len(rows),
            preprocessing=views_lib.Preprocessing(config.data.resize_method),
        ).as_numpy_iterator()
    )
    return [
        {
            "jpeg": jpeg,
            "path": text_lib.printable(data.validation.path(row)),
            "true": data.class_names[predictions.label[row]],
            "predicted": data.class_names[predictions.top[row, 0]],
            "confidence": float(predictions.probability[row]),
        }
        for row, jpeg in zip(rows, draw(views), strict=True)
    ]


def mean_by_label(hits: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Mean of (N,) hits for each of the classes; NaN where a class has no example."""
    count = np.bincount(label, minlength=classes).astype(np.float64)
    total = np.bincount(label, weights=hits, minlength=classes)
    return np.divide(total, count, out=np.full(classes, np.nan), where=count > 0)
