"""The record of accuracy on tiny-imagenet-100: curves, evaluations on validation images, a table.

    python -m benchmarks.headline add RUN NAME [--after=NAME]
    python -m benchmarks.headline table

`add` copies what a run reached into results/tiny_imagenet_100/NAME; `--after` is the run that it
started from, whose images and minutes count, too. Its figures on the 5,000 validation images come
from `evaluate --test_dataset=tiny_imagenet_100`; each such evaluation is a line of looks.csv, and
stays there. `table` writes README.md and curves.png there.
"""

import argparse
import csv
import dataclasses
import datetime
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from matplotlib import figure

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.evaluation import charts, confidence_intervals
from cnnrnn.runs import event_files, run_folder
from cnnrnn.system import atomic_files

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "results" / "tiny_imagenet_100"
TEST_SET = "test-tiny_imagenet_100"
AUTHORS_TOP5 = 0.9614  # reported with the original script
_FIGURES = ("loss", "top1", "top5")
_TIMES = ("minutes", "cpu_minutes")
_COSTS = ("images", *_TIMES)
_PATHS = ("--data_dir", "--archive", "--runs_dir", "--init_from", "--rnn_weights")
_HEADING = """# Accuracy on tiny-imagenet-100

Made by `python -m benchmarks.headline table`. Each line is an evaluation on the validation images
of the data set, by date (looks.csv); 95 % intervals are in brackets. Image passes and processor
hours include phase 1, the validations, and the runs that a run started from. The authors of the
original script report {authors:.2%} top-5.

| run | phase | epoch | image passes | processor hours | images | CNN input | top-1 | top-5 |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""


@dataclasses.dataclass(frozen=True)
class Point:
    """A validation within training.

    Attributes:
        phase: its name.
        epoch: finished epochs of the phase.
        images: trained on in the phase so far.
        minutes: of the phase so far, with validation.
        cpu_minutes: processor time of the program in these minutes, all threads together.
        loss, top1, top5: on the validation images of training.
        validated: number of these images.
    """

    phase: str
    epoch: int
    images: int
    minutes: float
    cpu_minutes: float
    loss: float
    top1: float
    top5: float
    validated: int


@dataclasses.dataclass(frozen=True)
class Look:
    """An evaluation on the validation split of the data set, which chooses nothing.

    Attributes:
        date: ISO 8601.
        run: name in the results.
        phase, epoch: of the evaluated weights.
        images: evaluated.
        image_size: of the CNN's input.
        top1, top5: from 0 to 1; `_low` and `_high` are the ends of 95 % intervals.
        weights: the file of the weights.
    """

    date: str
    run: str
    phase: str
    epoch: int
    images: int
    image_size: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    top5_low: float
    top5_high: float
    weights: str


def curve(folder: run_folder.RunFolder) -> Iterator[Point]:
    """The validations of all phases of a run, in order."""
    recorded = folder.config()
    for name, phase in phases.BY_NAME.items():
        if name not in recorded:
            continue
        config = config_lib.from_json(recorded[name])
        validated = folder.manifest()[name]["dataset"]["validation_examples"]
        trained = folder.manifest()[name]["dataset"]["training_examples"]
        schedule = phases.schedule(phase, config, trained)
        values: dict[int, dict[str, float]] = {}
        for split, tags in (("validation", _FIGURES), ("train", _TIMES)):
            for tag, step, value in event_files.scalars(folder.events(phase, split)):
                if tag in tags:
                    values.setdefault(step, {})[tag] = value
        for step, at_step in sorted(values.items()):
            yield Point(
                phase=name,
                epoch=step // schedule.steps_per_epoch,
                images=step * schedule.batch_size,
                validated=validated,
                **{tag: at_step[tag] for tag in (*_FIGURES, *_TIMES)},
            )


def look(folder: run_folder.RunFolder, name: str) -> Look | None:
    """The evaluation of a run on the data set's validation split, if there is one."""
    path = folder.root / TEST_SET / "results.json"
    if not path.exists():
        return None
    results = json.loads(path.read_text(encoding="utf-8"))
    modified = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    figures = {}
    for figure_name in ("top1", "top5"):
        low, high = results["intervals_95"][figure_name]
        figures |= {
            figure_name: results["validation"][figure_name],
            f"{figure_name}_low": low,
            f"{figure_name}_high": high,
        }
    return Look(
        date=modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=name,
        phase=results["phase"],
        epoch=results["epoch"],
        images=results["validation"]["count"],
        image_size=results["cnn_image_size"],
        weights=results["weights"],
        **figures,
    )


def record(folder: run_folder.RunFolder, after: str) -> dict[str, Any]:
    """How a run was made: flags, versions, machine; no paths of the machine.

    Args:
        folder: of the run.
        after: name of the run that it started from, '' for none.
    """
    described = {}
    for name, manifest in folder.manifest().items():
        config = config_lib.from_json(folder.config()[name])
        kept = ("processor", "cores", "devices", "precision", "packages", "git_commit", "dataset")
        described[name] = {
            "flags": flags_without_paths(config),
            **{key: manifest[key] for key in kept},
        }
    return {"after": after, "phases": described}


def flags_without_paths(config: config_lib.Config) -> list[str]:
    """The settings that differ from their default, without paths of the machine."""
    return [flag for flag in config.to_flags() if not flag.startswith(_PATHS)]


def add(root: pathlib.Path, name: str, after: str = "", results: pathlib.Path = RESULTS) -> None:
    """Copies what a run reached into the results.

    Args:
        root: run folder.
        name: of the run in the results.
        after: name in the results of the run that it started from.
        results: the folder of the results.
    """
    folder = run_folder.RunFolder(root)
    to = results / name
    to.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(to / "record.json", record(folder, after))
    write_rows(to / "curve.csv", Point, curve(folder))
    looked = look(folder, name)
    if looked is None:
        return
    for file in ("results.json", "predictions.csv", "report.html"):
        content = (folder.root / TEST_SET / file).read_text(encoding="utf-8")
        atomic_files.write_text(to / file, without_paths(content))
    before = list(read_rows(results / "looks.csv", Look))
    if looked not in before:
        write_rows(results / "looks.csv", Look, [*before, looked])


def without_paths(text: str) -> str:
    """A text in which absolute paths are shortened to the name of the file.

    A slash that belongs to a URL, a tag, a number or base64 data does not begin a path.
    """
    return re.sub(r"(?<![\w:/<.+=,])/(?:[\w.+-]+/)+", "", text)


def write_rows(path: pathlib.Path, kind: type, rows: Iterable[Any]) -> None:
    """Writes dataclasses as a CSV file."""
    with atomic_files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(kind)])
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, rows))


def read_rows(path: pathlib.Path, kind: type) -> Iterator[Any]:
    """Reads dataclasses from a CSV file; none if there is no file."""
    if not path.exists():
        return
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            yield kind(**{name: types[name](value) for name, value in row.items()})


def totals(name: str, results: pathlib.Path) -> dict[tuple[str, str, int], Point]:
    """The validations of a recorded run and of those that it started from, by run, phase, epoch.

    Images and minutes count from the start of the first of these runs, phase 1 included.
    """
    after = json.loads((results / name / "record.json").read_text(encoding="utf-8"))["after"]
    points = totals(after, results) if after else {}
    phase, before = None, None
    for point in read_rows(results / name / "curve.csv", Point):
        if point.phase != phase:
            phase, before = point.phase, list(points.values())[-1] if points else None
        if before is not None:
            spent = {key: getattr(point, key) + getattr(before, key) for key in _COSTS}
            point = dataclasses.replace(point, **spent)
        points[name, point.phase, point.epoch] = point
    return points


def table(results: pathlib.Path = RESULTS) -> None:
    """Writes README.md and curves.png into the results."""
    looks = list(read_rows(results / "looks.csv", Look))
    records = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(results.glob("*/record.json"))
    }
    runs = {name: totals(name, results) for name in records}
    started_from = {recorded["after"] for recorded in records.values()}
    chart = _chart({name: runs[name] for name in runs if name not in started_from}, looks, runs)
    with atomic_files.replacing(results / "curves.png") as temporary:
        temporary.write_bytes(chart)
    lines = [*_HEADING.format(authors=AUTHORS_TOP5).splitlines()]
    lines += [_line(look, _reached(look, runs)) for look in looks]
    lines += ["", "![top-5 accuracy over image passes and processor hours](curves.png)", ""]
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


def _reached(look: Look, runs: dict[str, dict[tuple[str, str, int], Point]]) -> Point:
    """The validation in training of the weights that were evaluated."""
    return runs[look.run][look.run, look.phase, look.epoch]


def _line(look: Look, point: Point) -> str:
    return (
        f"| {look.run} | {look.phase} | {look.epoch} | {point.images:,} "
        f"| {point.cpu_minutes / 60:.1f} | {look.images:,} | {look.image_size} "
        f"| {look.top1:.2%} [{look.top1_low:.2%}, {look.top1_high:.2%}] "
        f"| {look.top5:.2%} [{look.top5_low:.2%}, {look.top5_high:.2%}] |"
    )


def _chart(
    drawn: dict[str, dict[tuple[str, str, int], Point]],
    looks: list[Look],
    runs: dict[str, dict[tuple[str, str, int], Point]],
) -> bytes:
    """Draws top-5 over image passes and over processor hours, as a PNG."""
    chart = figure.Figure(figsize=(11, 4.5), layout="constrained")
    costs = (
        ("image passes", lambda point: point.images),
        ("processor hours", lambda point: point.cpu_minutes / 60),
    )
    for axes, (title, cost) in zip(chart.subplots(1, 2, sharey=True), costs, strict=True):
        for name, points in drawn.items():
            x = [cost(point) for point in points.values()]
            intervals = [_interval(point) for point in points.values()]
            (line,) = axes.plot(
                x,
                [interval.value for interval in intervals],
                marker=".",
                label=f"{name}: held-out training images",
            )
            axes.fill_between(
                x,
                [interval.low for interval in intervals],
                [interval.high for interval in intervals],
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
        axes.errorbar(
            [cost(_reached(look, runs)) for look in looks],
            [look.top5 for look in looks],
            [
                [look.top5 - look.top5_low for look in looks],
                [look.top5_high - look.top5 for look in looks],
            ],
            fmt="D",
            color="black",
            markersize=4,
            capsize=3,
            label="all validation images",
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


def _interval(point: Point) -> confidence_intervals.Interval:
    hits = round(point.top5 * point.validated)
    return confidence_intervals.proportion(np.repeat([1, 0], [hits, point.validated - hits]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.headline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(dest="word", required=True)
    adding = words.add_parser("add", help="copy what a run reached into the results")
    adding.add_argument("run", type=pathlib.Path, help="run folder")
    adding.add_argument("name", help="of the run in the results")
    adding.add_argument("--after", default="", help="name of the run that it started from")
    words.add_parser("table", help="write README.md and curves.png")
    arguments = parser.parse_args()
    if arguments.word == "add":
        add(arguments.run, arguments.name, arguments.after)
    else:
        table()


if __name__ == "__main__":
    main()
