"""The page of the accuracy on tiny-imagenet-100: tables and curves, from what was recorded."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from matplotlib import figure

from benchmarks import headline_record
from cnnrnn.evaluation import charts, confidence_intervals
from cnnrnn.system import atomic_files

_ALIKE = ("fingerprint", "phase", "epoch", "cnn_image_size")  # of results.json
AUTHORS_TOP5 = 0.9614  # reported with the original script
Points = dict[tuple[str, str, int], headline_record.Point]  # by run, phase, epoch
_COSTS = ("images", "minutes", "cpu_minutes")
_CURVES = """
![top-5 accuracy over image passes and processor hours](curves.png)

Lines: the images that training validates on, with 95 % intervals. Diamonds: all validation images
of the data set.
"""
_CONTROLS = """
## Controls

Each run compared with one that lacks a part of the network, trained by the same recipe and
evaluated on the same images. The intervals of the differences are those of paired proportions
(Agresti and Min 2005). They are over images: each network was trained once, and another seed would
give other differences.

The differences are those of the run minus the control, in percentage points.

| run | control | phase, epoch | images | top-1 | top-5 |
| --- | --- | --- | ---: | --- | --- |
"""
_HEADING = """# Accuracy on tiny-imagenet-100

Made by `python -m benchmarks.headline table`. Each line is an evaluation on the validation images
of the data set, by date (evaluations.csv); 95 % intervals are in brackets. Image passes and
processor hours include phase 1, the validations, and the runs that a run started from, but not the
features of the CNN that phase 1 caches. A run may have been stopped before the last of its epochs.
The authors of the original script report {authors:.2%} top-5.

| run | phase | epoch | image passes | processor hours | images | CNN input | top-1 | top-5 |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""


def totals(name: str, results: pathlib.Path) -> Points:
    """The validations of a recorded run and of those that it started from, by run, phase, epoch.

    Images and minutes count from the start of the first of these runs, phase 1 included.
    """
    after = json.loads((results / name / "record.json").read_text(encoding="utf-8"))["after"]
    points = totals(after, results) if after else {}
    phase, before = None, None
    for point in headline_record.read_rows(results / name / "curve.csv", headline_record.Point):
        if point.phase != phase:
            phase, before = point.phase, list(points.values())[-1] if points else None
        if before is not None:
            spent = {key: getattr(point, key) + getattr(before, key) for key in _COSTS}
            point = dataclasses.replace(point, **spent)
        points[name, point.phase, point.epoch] = point
    return points


def table(results: pathlib.Path = headline_record.RESULTS) -> None:
    """Writes README.md and curves.png into the results."""
    evaluations = list(
        headline_record.read_rows(results / "evaluations.csv", headline_record.Evaluation)
    )
    records = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(results.glob("*/record.json"))
    }
    runs = {name: totals(name, results) for name in records}
    started_from = {recorded["after"] for recorded in records.values()}
    chart = _chart(
        {name: runs[name] for name in runs if name not in started_from}, evaluations, runs
    )
    with atomic_files.replacing(results / "curves.png") as temporary:
        temporary.write_bytes(chart)
    lines = [*_HEADING.format(authors=AUTHORS_TOP5).splitlines()]
    lines += [_line(evaluation, _reached(evaluation, runs)) for evaluation in evaluations]
    lines += _CURVES.splitlines()
    controls = [_control(name, records[name]["control_of"], results) for name in records]
    if any(controls):
        lines += [*_CONTROLS.splitlines(), *filter(None, controls)]
    lines.append("")
    for name, recorded in records.items():
        lines += [f"## {name}", ""]
        if recorded["after"]:
            lines += [f"Phase 2 started from the best weights of {recorded['after']}.", ""]
        for phase, described in recorded["phases"].items():
            commit = (described["git_commit"] or "unknown")[:12]
            lines += [
                f"{phase}: {described['processor']}, {described['cores']} cores, "
                f"{described['precision']}, commit {commit}",
                "",
                *(f"    {flag}" for flag in described["flags"]),
                "",
            ]
    atomic_files.write_text(results / "README.md", "\n".join(lines))


def _recipe(folder: pathlib.Path) -> dict[str, Any]:
    """What a run and its control must have in common."""
    evaluated, recorded = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("results.json", "record.json")
    )
    found = {key: evaluated[key] for key in _ALIKE}
    for phase, described in recorded["phases"].items():
        flags = described["flags"]
        # At a constant rate, how many epochs were planned does not matter to the one compared.
        is_constant = not any(flag.startswith("--schedule=") for flag in flags)
        free = ("--run=", "--fusion=", *(["--epochs="] if is_constant else []))
        found[phase] = {
            "images": described["dataset"]["fingerprint"],
            "precision": described["precision"],
            "flags": [flag for flag in flags if not flag.startswith(free)],
        }
    return found


def _control(name: str, control_of: str, results: pathlib.Path) -> str:
    """A line of the table of controls; '' for a run that is none, or has not been evaluated.

    Raises:
        ValueError: run and control were not trained by one recipe, or not evaluated alike.
    """
    if not control_of or not (results / name / headline_record.PREDICTIONS).exists():
        return ""
    made = [_recipe(results / each) for each in (control_of, name)]
    if made[0] != made[1]:
        raise ValueError(f"{name} is no control of {control_of}: {made[1]} instead of {made[0]}.")
    run, control = (
        headline_record.hits(results / each / headline_record.PREDICTIONS)
        for each in (control_of, name)
    )
    points = [
        headline_record.points(confidence_intervals.paired_difference(column))
        for column in (run - control).T
    ]
    return (
        f"| {control_of} | {name} | {made[0]['phase']}, {made[0]['epoch']} | {len(run):,} "
        f"| {' | '.join(points)} |"
    )


def _reached(
    evaluation: headline_record.Evaluation, runs: dict[str, Points]
) -> headline_record.Point:
    """The validation in training of the weights that were evaluated.

    Raises:
        ValueError: there is none.
    """
    try:
        return runs[evaluation.run][evaluation.run, evaluation.phase, evaluation.epoch]
    except KeyError as error:
        raise ValueError(
            f"the curve of {evaluation.run} has no validation of epoch {evaluation.epoch} of "
            f"{evaluation.phase}, whose weights were evaluated: remove its line from "
            "evaluations.csv."
        ) from error


def _line(evaluation: headline_record.Evaluation, point: headline_record.Point) -> str:
    return (
        f"| {evaluation.run} | {evaluation.phase} | {evaluation.epoch} | {point.images:,} "
        f"| {point.cpu_minutes / 60:.1f} | {evaluation.images:,} | {evaluation.image_size} "
        f"| {evaluation.top1:.2%} [{evaluation.top1_low:.2%}, {evaluation.top1_high:.2%}] "
        f"| {evaluation.top5:.2%} [{evaluation.top5_low:.2%}, {evaluation.top5_high:.2%}] |"
    )


def _chart(
    drawn: dict[str, Points], evaluations: list[headline_record.Evaluation], runs: dict[str, Points]
) -> bytes:
    """Draws top-5 over image passes and over processor hours, as a PNG.

    Args:
        drawn: the validations of each run that no other one started from.
        evaluations: each is drawn beside the run that it leads to.
        runs: the validations of all runs.
    """
    chart = figure.Figure(figsize=(11, 4.5), layout="constrained")
    costs = (
        ("image passes", lambda point: point.images),
        ("processor hours", lambda point: point.cpu_minutes / 60),
    )
    for axes, (title, cost) in zip(chart.subplots(1, 2, sharey=True), costs, strict=True):
        for name, points in drawn.items():
            x = [cost(point) for point in points.values()]
            intervals = [_interval(point) for point in points.values()]
            values = [interval.value for interval in intervals]
            (line,) = axes.plot(x, values, marker=".", label=name)
            axes.fill_between(
                x,
                [interval.low for interval in intervals],
                [interval.high for interval in intervals],
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
            own = [
                evaluation
                for evaluation in evaluations
                if (evaluation.run, evaluation.phase, evaluation.epoch) in points
            ]
            axes.errorbar(
                [cost(_reached(evaluation, runs)) for evaluation in own],
                [evaluation.top5 for evaluation in own],
                [
                    [evaluation.top5 - evaluation.top5_low for evaluation in own],
                    [evaluation.top5_high - evaluation.top5 for evaluation in own],
                ],
                fmt="D",
                color=line.get_color(),
                markeredgecolor="black",
                markersize=5,
                capsize=3,
            )
        axes.axhline(
            AUTHORS_TOP5,
            color="#b42318",
            linestyle="--",
            linewidth=1,
            label="reported by the authors",
        )
        axes.set(xlabel=title, xlim=(0, None))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.spines[["top", "right"]].set_visible(False)
    chart.axes[0].set_ylabel("top-5 accuracy")
    chart.axes[0].legend(frameon=False, loc="lower right")
    return charts.png(chart)


def _interval(point: headline_record.Point) -> confidence_intervals.Interval:
    hits = round(point.top5 * point.validated)
    return confidence_intervals.proportion(np.repeat([1, 0], [hits, point.validated - hits]))
