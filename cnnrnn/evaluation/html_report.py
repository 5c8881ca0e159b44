"""The evaluation report as one self-contained HTML page: no network, no other file."""

import base64
import dataclasses
import json
import math
import pathlib
from typing import Any

import jinja2

from cnnrnn import shapes
from cnnrnn.evaluation import branch_ablation, class_scores, confidence_intervals
from cnnrnn.system import text as text_lib

_TEMPLATE = "html_report.html.jinja"
_FEWEST_IMAGES = 30  # with fewer, the interval of a mean is too narrow


@dataclasses.dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows.

    Attributes:
        chance: top-1 accuracy of guessing.
        classes: scores of each class.
        macro: their means.
        confusions: "true", "predicted", "count", "of" (images of the true class) and "images" of
            the most confused pairs of classes.
        mistakes: the most confident wrong predictions. An image is "jpeg", "path", "true",
            "predicted" and "confidence".
        bins: of the reliability diagram.
        cnn, rnn: statistics of the branches' outputs; None for a branch that the network lacks.
        ablations: as `branch_ablation.ablations` returns them.
        charts: PNGs by name: "confusion", "reliability", "top1_by_class", "top5_by_class" and
            "curves/PHASE".
        manifest: the run's manifest.json.
    """

    title: str
    subtitle: str
    loss: confidence_intervals.Interval
    top1: confidence_intervals.Interval
    top5: confidence_intervals.Interval
    chance: float
    classes: list[class_scores.ClassScore]
    macro: class_scores.MacroScores
    confusions: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]
    calibration_error: float
    bins: list[class_scores.Bin]
    cnn: branch_ablation.OutputStatistics | None
    rnn: branch_ablation.OutputStatistics | None
    ablations: list[branch_ablation.Ablation]
    charts: dict[str, bytes]
    manifest: dict[str, Any]


def render(content: ReportContent) -> str:
    """Renders the page as HTML."""
    template = environment().get_template(_TEMPLATE)
    return template.render(
        report=content,
        verdict=verdict(content),
        bins=class_scores.BINS,
        program=text_lib.program(),
        all_are_top5=_all_are_top5(content),
    )


def environment() -> jinja2.Environment:
    """The templates of this package, with filters for figures and images."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = _percent
    made.filters["nats"] = lambda value: _number(value, ".4f")
    made.filters["points"] = _points
    made.filters["data_uri"] = _data_uri
    made.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return made


def verdict(content: ReportContent) -> str:
    """Whether the network uses each branch: one line per branch."""
    images = sum(score.support for score in content.classes)
    found = {ablation.name: ablation for ablation in content.ablations}
    outputs = {"RNN": content.rnn, "CNN": content.cnn}
    return "\n".join(
        f"The network has no {name} branch."
        if outputs[name] is None
        else _branch_verdict(
            name,
            outputs[name],
            found[branch_ablation.permuted_name(name)],
            images,
            has_top5=not _all_are_top5(content),
        )
        for name in branch_ablation.BRANCHES
    )


def _all_are_top5(content: ReportContent) -> bool:
    """Whether there are so few classes that every label is among the five most likely ones."""
    return len(content.classes) <= shapes.TOP_K


def _branch_verdict(
    name: str,
    outputs: branch_ablation.OutputStatistics,
    permuted: branch_ablation.Ablation,
    images: int,
    *,
    has_top5: bool,
) -> str:
    if images < _FEWEST_IMAGES:
        claim = f"{images} images are too few to tell whether the network uses its {name} branch"
    elif permuted.is_significant:
        claim = f"The network uses its {name} branch"
    elif permuted.is_gain:
        claim = f"The network depends on its {name} branch, whose outputs lower its accuracy"
    else:
        claim = f"No use of the {name} branch is measurable on {images:,} images"
    top5 = f" and top-5 by {_change(permuted.top5_drop)}" if has_top5 else ""
    variation = outputs.std / max(outputs.mean_abs, 1e-12)
    return (
        f"{claim}: permuting its outputs across images changes top-1 by "
        f"{_change(permuted.top1_drop)}{top5} percentage "
        "points (95% intervals in parentheses). The standard deviation of its outputs across "
        f"images is {variation:.1%} of their mean absolute value."
    )


def _points(drop: confidence_intervals.Interval) -> str:
    """A drop in accuracy in percentage points, with the ends of its interval."""
    value, low, high = (_number(end, ".2f") for end in drop.points())
    return f"{value} ({low} to {high})"


def _change(drop: confidence_intervals.Interval) -> str:
    """A drop in accuracy as a change of it: '-0.12 (-0.24 to +0.01)'."""
    change = confidence_intervals.Interval(-drop.value, -drop.high, -drop.low)
    value, low, high = change.points()
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _percent(value: float, digits: int = 2) -> str:
    return _number(value, f".{digits}%")


def _number(value: float, form: str) -> str:
    """A formatted number; a dash if it is not finite."""
    return format(value, form) if math.isfinite(value) else "–"


def _data_uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
