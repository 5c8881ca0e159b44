"""The files that an evaluation leaves: results.json, the per-label table, its two charts."""

import numpy as np

from cnnrnn import atomic_file, best_weights, datasets, inference, plots, run_folder


def write(
    folder: run_folder.RunFolder,
    data: datasets.Dataset,
    best: best_weights.Best,
    predictions: inference.Predictions,
) -> None:
    """Writes everything; results.json last, so that it stands for the rest."""
    names = list(data.class_names)
    top1 = mean_by_label(predictions.top1, predictions.label, len(names))
    top5 = mean_by_label(predictions.top5, predictions.label, len(names))
    lines = ["label\ttop-1\ttop-5"]
    lines += [
        f"{_one_line(name)}\t{_figure(first)}\t{_figure(five)}"
        for name, first, five in zip(names, top1, top5, strict=True)
    ]
    atomic_file.write_text(folder.evaluation / "per_label.tsv", "\n".join(lines) + "\n")
    for name, accuracy in (("top1", top1), ("top5", top5)):
        title = f"{name.replace('top', 'Top-')} by label"
        with atomic_file.replacing(folder.evaluation / f"{name}_by_label.png") as temporary:
            temporary.write_bytes(plots.label_chart(names, accuracy, title))
    atomic_file.write_json(
        folder.results,
        {
            "dataset": data.name,
            "fingerprint": data.fingerprint,
            "weights": best.weights.name,
            "phase": best.phase,
            "epoch": best.epoch,
            "validation": predictions.means.to_json(),
        },
    )


def mean_by_label(hits: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Mean of (N,) hits for each of the classes; NaN where a class has no example."""
    count = np.bincount(label, minlength=classes).astype(np.float64)
    total = np.bincount(label, weights=hits, minlength=classes)
    return np.divide(total, count, out=np.full(classes, np.nan), where=count > 0)


def _figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _one_line(name: str) -> str:
    return " ".join(name.split())
