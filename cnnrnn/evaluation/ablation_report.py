"""The comparison of a network with controls: table, verdict, forest plot, files."""

import csv
import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import axes as axes_lib
from matplotlib import figure

from cnnrnn.evaluation import charts, confidence_intervals, html_report, paired_differences
from cnnrnn.settings import network as network_settings
from cnnrnn.system import atomic_files

NAMES = {"cnn": "CNN alone", "gain": "CNN x constant gain", "rnn": "RNN alone"}
HELPS = "The RNN helps"
_WITH_GAIN = ("product", "gated")  # values of --fusion with which a constant RNN is a gain
_METRICS = ("top1", "top5")
_MOST_TIMES = 5  # the range of the forest plot, in that of the controls without an RNN
_COLORS = ("#3b6fb6", "#b4690e", "#1a7f37", "#8250df")


@dataclasses.dataclass(frozen=True)
class Training:
    """One trained network.

    Attributes:
        top1: (N,) 1 where the validation image was classified correctly, else 0.
        top5: (N,) likewise.
        parameters: trained in the last phase.
        images_per_second: of the fastest epoch of the last phase; NaN if unknown.
        curve: (step, validation top-1) of the last phase.
        best_is_last: whether the last epoch was the best.
    """

    top1: np.ndarray
    top5: np.ndarray
    parameters: int
    images_per_second: float
    curve: list[tuple[int, float]]
    best_is_last: bool = False


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All trainings of a comparison.

    Attributes:
        data: name and size.
        trained_phases: in words.
        trainings: of each seed, in the same order for each --fusion; the first is the network
            that is compared with the others.
        notes: sentences that a reader of the figures should know.
    """

    data: str
    trained_phases: str
    trainings: dict[str, list[Training]]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """--fusion of the network that is compared with the controls."""
        return next(iter(self.trainings))

    @property
    def controls(self) -> list[str]:
        return [fusion for fusion in self.trainings if fusion != self.whole]

    @property
    def seeds(self) -> int:
        return len(self.trainings[self.whole])

    def name(self, fusion: str) -> str:
        return NAMES.get(fusion, f"CNN and RNN ({fusion})")

    def hits(self, fusion: str, metric: str) -> np.ndarray:
        """(seeds, images)."""
        return np.stack([getattr(training, metric) for training in self.trainings[fusion]])

    @functools.cached_property
    def differences(self) -> dict[tuple[str, str], paired_differences.Difference]:
        """The network minus each control, by control and metric."""
        return {
            (control, metric): paired_differences.difference(
                self.hits(self.whole, metric), self.hits(control, metric), len(self.controls)
            )
            for control in self.controls
            for metric in _METRICS
        }


def remarks(comparison: Comparison) -> tuple[str, ...]:
    """What limits the verdict: an RNN that is as good alone, and networks that still improved."""
    found = []
    if _claim(_signs(comparison), comparison.seeds == 1) == HELPS and "rnn" in comparison.controls:
        against_rnn = comparison.differences["rnn", "top1"]
        if _sign(against_rnn) < 1:
            found.append(
                "The whole network is not measurably better than the RNN alone: the difference in "
                f"top-1 is {points(against_rnn.interval)}."
            )
    if improving := _still_improving(comparison):
        found.append(improving)
    return tuple(found)


def _still_improving(comparison: Comparison) -> str:
    """Names the networks of which the last epoch was the best; '' if there are none."""
    if not _has_curves(comparison):
        return "Each network was validated once: with more --epochs the differences may be others."
    found, advice = [], ""
    for fusion, trainings in comparison.trainings.items():
        count = sum(training.best_is_last for training in trainings)
        if count:
            found.append(f"{comparison.name(fusion)} with {count} of {len(trainings)} seeds")
            if fusion in network_settings.WITHOUT_RNN and comparison.trained_phases == "phase1":
                advice = " Without an RNN, more epochs take little time (phase1 --fusion=cnn)."
    if not found:
        return ""
    return (
        f"The last epoch was the best of {'; '.join(found)}: with more --epochs the differences "
        f"may be others.{advice}"
    )


def verdict(comparison: Comparison) -> str:
    """One sentence: whether the network is better with its RNN than without."""
    found = {
        control: comparison.differences[control, "top1"]
        for control in network_settings.WITHOUT_RNN
        if control in comparison.controls
    }
    differences = ", and ".join(
        f"{points(each.interval)} against the {comparison.name(control)}"
        for control, each in found.items()
    )
    one_seed = comparison.seeds == 1
    claim = _claim(_signs(comparison), one_seed)
    improving = (training.best_is_last for each in found for training in comparison.trainings[each])
    if claim == HELPS and any(improving):
        claim += " within these epochs"
    return (
        f"{claim}: on {comparison.data}, after "
        f"{comparison.trained_phases}, with {comparison.seeds} seed{'' if one_seed else 's'}, the "
        f"difference in top-1 of the whole network is {differences}, in percentage points (95% "
        f"intervals over images{'' if one_seed else ' and seeds'}, for {len(comparison.controls)} "
        "comparisons)."
    )


def _signs(comparison: Comparison) -> list[int]:
    """`_sign` of the difference from each control that the verdict depends on."""
    # Joined in other ways, a constant RNN is no gain but an offset, which the dense layer has.
    decisive = network_settings.WITHOUT_RNN if comparison.whole in _WITH_GAIN else ("cnn",)
    return [
        _sign(comparison.differences[control, "top1"])
        for control in decisive
        if control in comparison.controls
    ]


def _sign(difference: paired_differences.Difference) -> int:
    """1 if the network is better than a control, -1 if it is worse, 0 if that is not measurable."""
    return int(np.sign(difference.interval.value)) if difference.is_significant else 0


def _claim(signs: list[int], one_seed: bool) -> str:
    """What the differences from the controls without an RNN say; the CNN alone comes first."""
    if not any(signs):
        return "No benefit of the RNN is measurable"
    if one_seed:
        return "The networks differ, but one seed does not show that the RNN is the reason"
    if set(signs) == {1}:
        return HELPS
    if set(signs) == {-1}:
        return "The RNN does harm"
    if set(signs) == {-1, 1}:
        cnn, gain = ("Better", "worse") if signs[0] > 0 else ("Worse", "better")
        return f"{cnn} than the CNN alone, but {gain} than with a constant in place of the RNN"
    if signs[0] > 0:
        return (
            "Better than the CNN alone, but not measurably better than with a constant in place of "
            "the RNN"
        )
    if signs[0] < 0:
        return (
            "Worse than the CNN alone, but not measurably worse than with a constant in place of "
            "the RNN"
        )
    if signs[-1] < 0:
        return (
            "Not measurably better than the CNN alone, and worse than with a constant in place of "
            "the RNN"
        )
    return "No benefit of the RNN over the CNN alone is measurable"


def points(interval: confidence_intervals.Interval) -> str:
    """'0.31 (-0.12 to 0.74)', in percentage points."""
    value, low, high = interval.points()
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One row for each network; the differences of the whole network are empty."""
    for fusion, trainings in comparison.trainings.items():
        rate = float(np.median([training.images_per_second for training in trainings]))
        row: dict[str, Any] = {
            "fusion": fusion,
            "name": comparison.name(fusion),
            "parameters": trainings[0].parameters,
            "images_per_second": None if math.isnan(rate) else rate,
        }
        for metric in _METRICS:
            row[metric] = float(comparison.hits(fusion, metric).mean())
            found = comparison.differences.get((fusion, metric))
            ends = (None, None, None) if found is None else dataclasses.astuple(found.interval)
            columns = (f"{metric}_difference{end}" for end in ("", "_low", "_high"))
            row |= zip(columns, ends, strict=True)
        yield row


def shown(comparison: Comparison, fusion: str, metric: str) -> str:
    """A difference in words, '' for the whole network."""
    found = comparison.differences.get((fusion, metric))
    return "" if found is None else points(found.interval)


def table(comparison: Comparison) -> str:
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


def write(folder: pathlib.Path, comparison: Comparison) -> None:
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
            "verdict": verdict(comparison),
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
            verdict=verdict(comparison),
            forest=_forest(comparison),
            curves=_curves(comparison) if _has_curves(comparison) else None,
        )
    )
    atomic_files.write_text(folder / "ablation.html", html)


def _forest(comparison: Comparison) -> bytes:
    """The differences with their intervals and the value of each seed, as a PNG."""
    height = 0.9 + 0.55 * len(comparison.controls)
    chart = figure.Figure(figsize=(9, height), layout="constrained")
    for axes, metric in zip(chart.subplots(1, 2, sharey=True), _METRICS, strict=True):
        for y, control in enumerate(comparison.controls):
            found = comparison.differences[control, metric]
            interval, seeds = found.interval, [100 * value for value in found.of_seeds]
            axes.plot([100 * interval.low, 100 * interval.high], [y, y], color=_COLORS[0])
            axes.plot(seeds, [y + 0.2] * len(seeds), "|", color="#9aa5b1")
            axes.plot(100 * interval.value, y, "D", color=_COLORS[0])
        _limit(axes, comparison, metric)
        axes.axvline(0, color="#b42318", linewidth=1, linestyle="--")
        axes.set(title=metric.replace("top", "top-"), xlabel="whole network minus this, points")
        axes.set_yticks(range(len(comparison.controls)), map(comparison.name, comparison.controls))
        axes.margins(y=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    chart.axes[0].invert_yaxis()
    return charts.png(chart)


def _limit(axes: axes_lib.Axes, comparison: Comparison, metric: str) -> None:
    """Leaves the RNN alone out of the axis where it would hide the other differences."""
    low, high = axes.get_xlim()
    without = [
        100 * end
        for control in comparison.controls
        if control != "rnn"
        for end in (
            *comparison.differences[control, metric].of_seeds,
            *dataclasses.astuple(comparison.differences[control, metric].interval),
        )
    ]
    near, far = min(0.0, *without), max(0.0, *without)
    if high - low < _MOST_TIMES * (far - near):
        return
    margin = 0.1 * (far - near)
    axes.set_xlim(near - margin, far + margin)
    value = comparison.differences["rnn", metric].interval.value
    y = comparison.controls.index("rnn")
    if 100 * value > far + margin:
        x, align, text = far + margin, "right", f"{100 * value:+.1f} \u25b6"
    elif 100 * value < near - margin:
        x, align, text = near - margin, "left", f"\u25c0 {100 * value:+.1f}"
    else:
        return
    axes.text(x, y, text, ha=align, va="center", color=_COLORS[0])


def _has_curves(comparison: Comparison) -> bool:
    """Whether a training was validated more than once."""
    return any(len(one.curve) > 1 for each in comparison.trainings.values() for one in each)


def _curves(comparison: Comparison) -> bytes:
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
