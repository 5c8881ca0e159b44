"""The report of a comparison of networks: table, forest plot, curves, files."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import axes as axes_lib
from matplotlib import figure

from cnnrnn.evaluation import charts, html_report, network_comparison, paired_differences
from cnnrnn.system import atomic_files

_MOST_TIMES = 5  # the range of the forest plot, in that of the controls without an RNN
_COLORS = ("#3b6fb6", "#b4690e", "#1a7f37", "#8250df")


def rows(comparison: network_comparison.Comparison) -> Iterator[dict[str, Any]]:
    """One row for each network; the differences of the whole network are empty."""
    for fusion, trainings in comparison.trainings.items():
        rate = float(np.median([training.images_per_second for training in trainings]))
        row: dict[str, Any] = {
            "fusion": fusion,
            "name": comparison.name(fusion),
            "parameters": trainings[0].parameters,
            "images_per_second": None if math.isnan(rate) else rate,
        }
        for metric in network_comparison.METRICS:
            row[metric] = float(comparison.hits(fusion, metric).mean())
            found = comparison.differences.get((fusion, metric))
            ends = (None, None, None) if found is None else dataclasses.astuple(found.interval)
            columns = (f"{metric}_difference{end}" for end in ("", "_low", "_high"))
            row |= zip(columns, ends, strict=True)
        yield row


def shown(comparison: network_comparison.Comparison, fusion: str, metric: str) -> str:
    """A difference in words, '' for the whole network."""
    found = comparison.differences.get((fusion, metric))
    return "" if found is None else network_comparison.points(found.interval)


def table(comparison: network_comparison.Comparison) -> str:
    """The figures as text."""
    lines = [
        f"{'':<24}{'top-1':>9}{'top-5':>9}   whole network's top-1 minus this one's, in points"
    ]
    for row in rows(comparison):
        difference = shown(comparison, row["fusion"], "top1")
        lines.append(
            f"{row['name']:<24}{row['top1']:>9.2%}{row['top5']:>9.2%}   {difference}".rstrip()
        )
    return "\n".join(lines)


def write(folder: pathlib.Path, comparison: network_comparison.Comparison) -> None:
    """Writes ablation.html, .csv and .json."""
    found = list(rows(comparison))
    with atomic_files.replacing(folder / "ablation.csv") as path, open(path, "w") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    atomic_files.write_json(
        folder / "ablation.json",
        {
            "data": comparison.data,
            "trained_phases": comparison.trained_phases,
            "seeds": comparison.seeds,
            "networks": found,
            "differences_of_seeds": {
                f"{control} {metric}": list(difference.of_seeds)
                for (control, metric), difference in comparison.differences.items()
            },
            "verdict": network_comparison.verdict(comparison),
            "notes": list(comparison.notes),
        },
    )
    html = (
        html_report.environment()
        .get_template("ablation.html.jinja")
        .render(
            comparison=comparison,
            rows=found,
            shown=shown,
            verdict=network_comparison.verdict(comparison),
            forest=_forest(comparison),
            curves=_curves(comparison) if comparison.has_curves else None,
        )
    )
    atomic_files.write_text(folder / "ablation.html", html)


def _forest(comparison: network_comparison.Comparison) -> bytes:
    """The differences with their intervals and the value of each seed, as a PNG."""
    height = 0.9 + 0.55 * len(comparison.controls)
    chart = figure.Figure(figsize=(9, height), layout="constrained")
    for axes, metric in zip(
        chart.subplots(1, 2, sharey=True), network_comparison.METRICS, strict=True
    ):
        differences = {each: comparison.differences[each, metric] for each in comparison.controls}
        for y, found in enumerate(differences.values()):
            value, low, high = found.interval.points()
            seeds = [100 * each for each in found.of_seeds]
            axes.plot([low, high], [y, y], color=_COLORS[0])
            axes.plot(seeds, [y + 0.2] * len(seeds), "|", color="#9aa5b1")
            axes.plot(value, y, "D", color=_COLORS[0])
        _limit(axes, differences)
        axes.axvline(0, color="#b42318", linewidth=1, linestyle="--")
        axes.set(title=metric.replace("top", "top-"), xlabel="whole network minus this, points")
        axes.set_yticks(range(len(comparison.controls)), map(comparison.name, comparison.controls))
        axes.margins(y=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    chart.axes[0].invert_yaxis()
    return charts.png(chart)


def _limit(axes: axes_lib.Axes, differences: dict[str, paired_differences.Difference]) -> None:
    """Leaves the RNN alone out of the axis where it would hide the other differences."""
    shown_values = [0.0]
    for control, found in differences.items():
        if control != "rnn":
            shown_values += [*found.interval.points(), *(100 * each for each in found.of_seeds)]
    near, far = min(shown_values), max(shown_values)
    low, high = axes.get_xlim()
    if high - low < _MOST_TIMES * (far - near):
        return
    margin = 0.1 * (far - near)
    axes.set_xlim(near - margin, far + margin)
    value, y = differences["rnn"].interval.points()[0], list(differences).index("rnn")
    if value > far + margin:
        x, align, text = far + margin, "right", f"{value:+.1f} \u25b6"
    elif value < near - margin:
        x, align, text = near - margin, "left", f"\u25c0 {value:+.1f}"
    else:
        return
    axes.text(x, y, text, ha=align, va="center", color=_COLORS[0])


def _curves(comparison: network_comparison.Comparison) -> bytes:
    """Validation top-1 of each training over the steps, as a PNG."""
    chart = figure.Figure(figsize=(9, 3.4), layout="constrained")
    axes = chart.subplots()
    for color, (fusion, trainings) in zip(_COLORS, comparison.trainings.items(), strict=False):
        for i, training in enumerate(trainings):
            label = comparison.name(fusion) if i == 0 else None
            axes.plot(*zip(*training.curve, strict=True), ".-", color=color, label=label)
    axes.set(xlabel="step", ylabel="validation top-1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return charts.png(chart)
