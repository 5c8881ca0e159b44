"""The record of accuracy on tiny-imagenet-100: what runs reached, and evaluations, as files."""

import csv
import dataclasses
import datetime
import json
import math
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.evaluation import confidence_intervals
from cnnrnn.runs import event_files, run_folder
from cnnrnn.system import atomic_files

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "results" / "tiny_imagenet_100"
TEST_SET = "test-tiny_imagenet_100"
PREDICTIONS = "predictions.csv"  # of an evaluation
_FIGURES = ("loss", "top1", "top5")
_TIMES = ("minutes", "cpu_minutes")
_PLACES = (
    "--data_dir",
    "--archive",
    "--runs_dir",
    "--feature_cache",
    "--init_from",
    "--rnn_weights",
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A validation within training.

    Attributes:
        phase: its name.
        epoch: of the phase, finished or cut off by --max_minutes. Of two validations in one epoch,
            the table takes the later one.
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
class Evaluation:
    """An evaluation on the validation split of the data set.

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
                epoch=math.ceil(step / schedule.steps_per_epoch),
                images=step * schedule.batch_size,
                validated=validated,
                **{tag: at_step[tag] for tag in (*_FIGURES, *_TIMES)},
            )


def evaluation(folder: run_folder.RunFolder, name: str) -> Evaluation | None:
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
    return Evaluation(
        date=modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=name,
        phase=results["phase"],
        epoch=results["epoch"],
        images=results["validation"]["count"],
        image_size=results["cnn_image_size"],
        weights=results["weights"],
        **figures,
    )


def record(folder: run_folder.RunFolder, after: str, control_of: str) -> dict[str, Any]:
    """How a run was made: flags, versions, machine; no paths of the machine.

    Args:
        folder: of the run.
        after: name of the run that it started from, '' for none.
        control_of: name of the run that it is compared with, '' for none.
    """
    described = {}
    for name, manifest in folder.manifest().items():
        config = config_lib.from_json(folder.config()[name])
        kept = ("processor", "cores", "devices", "precision", "packages", "git_commit", "dataset")
        described[name] = {
            "flags": flags_without_paths(config),
            **{key: manifest[key] for key in kept},
        }
    return {"after": after, "control_of": control_of, "phases": described}


def flags_without_paths(config: config_lib.Config) -> list[str]:
    """The settings that differ from their default, without paths of the machine.

    Flags that only name a place are left out; of other paths the last name is kept.
    """
    flags = [flag.partition("=") for flag in config.to_flags() if not flag.startswith(_PLACES)]
    return [
        f"{name}{equals}{','.join(without_paths(part) for part in value.split(','))}"
        for name, equals, value in flags
    ]


def add(
    root: pathlib.Path,
    name: str,
    after: str | None = None,
    control_of: str | None = None,
    results: pathlib.Path = RESULTS,
) -> None:
    """Copies what a run reached into the results.

    Args:
        root: run folder.
        name: of the run in the results.
        after: name in the results of the run that it started from, '' for none. None: as recorded
            before.
        control_of: name in the results of the run that it is compared with, likewise.
        results: the folder of the results.

    Raises:
        ValueError: there are no results of that name, or the run is an average, which has no curve.
    """
    folder = run_folder.RunFolder(root)
    if any("average" in described for described in folder.manifest().values()):
        raise ValueError(f"{root} is an average of weights: it was not trained.")
    to = results / name
    others = {"after": after, "control_of": control_of}
    if (to / "record.json").exists():
        before = json.loads((to / "record.json").read_text(encoding="utf-8"))
        others = {key: before[key] if other is None else other for key, other in others.items()}
    for key, other in others.items():
        needed = PREDICTIONS if key == "control_of" else "record.json"
        if other and not (results / other / needed).exists():
            raise ValueError(f"--{key}={other}: {results} has no such results.")
    to.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(
        to / "record.json", record(folder, **{key: other or "" for key, other in others.items()})
    )
    write_rows(to / "curve.csv", Point, curve(folder))
    found = evaluation(folder, name)
    if found is None:
        return
    for file in ("results.json", PREDICTIONS, "report.html"):
        content = (folder.root / TEST_SET / file).read_text(encoding="utf-8")
        atomic_files.write_text(to / file, without_paths(content))
    before = list(read_rows(results / "evaluations.csv", Evaluation))
    if found not in before:
        write_rows(results / "evaluations.csv", Evaluation, [*before, found])


def without_paths(text: str) -> str:
    """A text in which absolute paths are shortened to the name of the file.

    A slash that belongs to a URL, a tag, a number or base64 data does not begin a path.
    """
    return re.sub(r"(?<!base64,)(?<![\w:/<.+=])/(?:[\w.+-]+/)+", "", text)


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


def hits(path: pathlib.Path) -> np.ndarray:
    """(N, 2), 0 or 1: whether the prediction for each image is right, and one of the best five."""
    with open(path, newline="") as file:
        return np.array(
            [(row["true"] == row["predicted"], int(row["in_top5"])) for row in csv.DictReader(file)]
        ).astype(float)


def points(interval: confidence_intervals.Interval) -> str:
    """'0.31 [-0.12, 0.74]', in percentage points."""
    value, low, high = interval.points()
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
