"""Writes the files of an evaluation: results.json, report.html, tables, charts and summaries."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
    thumbnails,
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
    preprocessing: views_lib.Preprocessing,
    data: dataset_lib.Dataset,
    best: best_weights.Best,
    network: network_lib.Network,
    predictions: predictions_lib.Predictions,
) -> class_scores.MacroScores:
    """Writes all files; results.json last, so that its presence means that all are complete.

    That of an earlier evaluation is removed first.

    Args:
        folder: of the run.
        preprocessing: of the evaluation.
        data: the dataset whose validation split was evaluated.
        best: the weights that were evaluated.
        network: with these weights.
        predictions: of the validation split, with the branches' outputs.

    Returns:
        The means over the classes.

    Raises:
        RunError: an image cannot be decoded.
    """
    names = data.class_names
    matrix = class_scores.confusion_matrix(predictions, len(names))
    classes = class_scores.by_class(predictions, names)
    bins = class_scores.reliability(predictions)
    examples = _Examples(data, predictions, preprocessing, network)
    in_training, manifest = data.validation_in_training, folder.manifest()
    average = manifest.get(best.phase, {}).get("average", {})
    also = f" ({in_training:,} are also training images)" if in_training else ""
    uses = {"RNN": network.uses_rnn, "CNN": network.uses_cnn}
    content = html_report.ReportContent(
        title=f"{data.name}: {'average' if average else best.phase}",
        subtitle=f"{best_weights.describe(best, manifest)}, on {len(data.validation):,} "
        f"{data.evaluated} images{also} in {len(names)} classes; "
        f"data fingerprint {data.fingerprint[:12]}",
        loss=confidence_intervals.mean(predictions.loss),
        top1=confidence_intervals.proportion(predictions.top1),
        top5=confidence_intervals.proportion(predictions.top5),
        chance=1 / len(names),
        classes=classes,
        macro=class_scores.macro(predictions, classes),
        confusions=examples.confusions(matrix),
        mistakes=examples.mistakes(),
        calibration_error=class_scores.expected_calibration_error(bins),
        bins=bins,
        cnn=branch_ablation.statistics(predictions.cnn) if uses["CNN"] else None,
        rnn=branch_ablation.statistics(predictions.rnn) if uses["RNN"] else None,
        ablations=branch_ablation.ablations(
            {"CNN": predictions.cnn, "RNN": predictions.rnn},
            lambda cnn, rnn: network.fused([cnn, rnn], training=False).numpy(),
            *network.fusion.get_layer("logits").get_weights(),
            predictions.label,
            [name for name in branch_ablation.BRANCHES if uses[name]],
        ),
        charts=_charts(classes, matrix, bins) | _curves(folder),
        manifest=manifest,
    )
    folder.results.unlink(missing_ok=True)
    for name in ("top1", "top5"):
        with atomic_files.replacing(folder.evaluation / f"{name}_by_label.png") as temporary:
            temporary.write_bytes(content.charts[f"{name}_by_class"])
    csv_tables.write(folder.evaluation, content, matrix, data.validation, predictions)
    atomic_files.write_text(folder.evaluation / "report.html", html_report.render(content))
    results = _results(data, best, content, predictions, preprocessing)
    if average:
        results["alpha"] = average["alpha"]
    events = folder.events(phases.BY_NAME[best.phase], folder.evaluation.name)
    tensorboard.write(events, best.epoch, results, content.charts)
    atomic_files.write_json(folder.results, results)
    return content.macro


def _results(
    data: dataset_lib.Dataset,
    best: best_weights.Best,
    content: html_report.ReportContent,
    predictions: predictions_lib.Predictions,
    preprocessing: views_lib.Preprocessing,
) -> dict[str, Any]:
    """The content of results.json; a number that is not finite is null."""
    return _finite(
        {
            "dataset": data.name,
            "fingerprint": data.fingerprint,
            "images_in_training": data.validation_in_training,
            "cnn_image_size": preprocessing.image_size,
            "weights": best.weights.name,
            "phase": best.phase,
            "epoch": best.epoch,
            "validation": predictions.means.to_json(),
            "macro": {
                "classes": content.macro.classes,
                "recall": content.macro.recall.value,
                "top5": content.macro.top5.value,
                "precision": content.macro.precision,
                "f1": content.macro.f1,
            },
            "intervals_95": {
                name: [interval.low, interval.high]
                for name, interval in (
                    ("loss", content.loss),
                    ("top1", content.top1),
                    ("top5", content.top5),
                    ("macro_recall", content.macro.recall),
                    ("macro_top5", content.macro.top5),
                )
            },
            "calibration_error": content.calibration_error,
            "branches": {
                "cnn": content.cnn and dataclasses.asdict(content.cnn),
                "rnn": content.rnn and dataclasses.asdict(content.rnn),
                "ablations": [dataclasses.asdict(ablation) for ablation in content.ablations],
                "verdict": html_report.verdict(content),
            },
        }
    )


def _finite(value: Any) -> Any:
    """Replaces infinity and NaN, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {name: _finite(nested) for name, nested in value.items()}
    if isinstance(value, list):
        return [_finite(nested) for nested in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _charts(
    classes: list[class_scores.ClassScore], matrix: np.ndarray, bins: list[class_scores.Bin]
) -> dict[str, bytes]:
    names = [score.name for score in classes]
    return {
        "confusion": charts.confusion_chart(names, matrix),
        "reliability": charts.reliability_chart(
            np.array([bin.confidence for bin in bins]),
            np.array([bin.accuracy for bin in bins]),
            np.array([bin.count for bin in bins]),
        ),
        "top1_by_class": charts.accuracy_chart(
            names, np.array([score.recall for score in classes]), "Top-1 accuracy by class"
        ),
        "top5_by_class": charts.accuracy_chart(
            names, np.array([score.top5 for score in classes]), "Top-5 accuracy by class"
        ),
    }


def _curves(folder: run_folder.RunFolder) -> dict[str, bytes]:
    """The training curves of each phase that has been trained."""
    curves = {}
    for name, phase in phases.BY_NAME.items():
        points = {
            split: event_files.scalars(folder.events(phase, split))
            for split in ("train", "validation")
        }
        if any(points.values()):
            curves[f"curves/{name}"] = charts.curves_chart(points, name)
    return curves


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Validation images for the report page."""

    data: dataset_lib.Dataset
    predictions: predictions_lib.Predictions
    preprocessing: views_lib.Preprocessing
    network: network_lib.Network

    def confusions(self, matrix: np.ndarray) -> list[dict[str, Any]]:
        """The most confused classes, each with its most confident images."""
        names = self.data.class_names
        return [
            {
                "true": names[pair.true],
                "predicted": names[pair.predicted],
                "count": pair.count,
                "of": int(matrix[pair.true].sum()),
                "images": self._images(pair.indices, _thumbnails),
            }
            for pair in class_scores.most_confused(self.predictions, matrix, _PAIRS, _EXAMPLES)
        ]

    def mistakes(self) -> list[dict[str, Any]]:
        """The most confident mistakes, with explanations of the predicted class."""
        indices = class_scores.most_confident_mistakes(self.predictions, _MISTAKES)

        def explained(views: dict[str, np.ndarray]) -> list[bytes]:
            explainer = attribution.Explainer(self.network)
            explanations = explainer.explain(views, self.predictions.top[indices, :1])
            return [
                thumbnails.explained_thumbnail(image, explanation.cam, explanation.timesteps)
                for image, (explanation,) in zip(views["image"], explanations, strict=True)
            ]

        return self._images(indices, explained)

    def _images(
        self, indices: Sequence[int], draw: Callable[[dict[str, np.ndarray]], list[bytes]]
    ) -> list[dict[str, Any]]:
        """Images as `html_report.ReportContent` has them.

        Args:
            indices: into the validation split.
            draw: makes one JPEG per image of a batch of views.
        """
        indices = np.asarray(indices, np.int64)
        if not len(indices):
            return []
        split = self.data.validation
        jpegs = draw(input_pipeline.examples(split.take(indices), self.preprocessing))
        return [
            {
                "jpeg": jpeg,
                "path": text_lib.printable(split.path(index)),
                "true": self.data.class_names[self.predictions.label[index]],
                "predicted": self.data.class_names[self.predictions.top[index, 0]],
                "confidence": float(self.predictions.probability[index]),
            }
            for index, jpeg in zip(indices, jpegs, strict=True)
        ]


def _thumbnails(views: dict[str, np.ndarray]) -> list[bytes]:
    return [thumbnails.thumbnail(image) for image in views["image"]]
