"""The evaluation as one HTML page that needs nothing else: no network, no other file."""

import base64
import dataclasses
import json
import math
import pathlib
from typing import Any

import jinja2

from cnnrnn.evaluation import branch_ablation, class_scores, confidence_intervals

_TEMPLATE = "html_report.html.jinja"
_FEWEST = 30  # images: by fewer, the interval of a mean is too narrow


@dataclasses.dataclass(frozen=True)
class Content:
    """All that the page shows.

    `images` are PNGs by name: confusion, reliability, top1, top5, and the phases' curves.
    """

    title: str
    subtitle: str
    loss: confidence_intervals.Interval
    top1: confidence_intervals.Interval
    top5: confidence_intervals.Interval
    chance: float
    classes: list[class_scores.ClassScore]
    confusions: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]
    calibration_error: float
    bins: list[class_scores.Bin]
    cnn: branch_ablation.Branch
    rnn: branch_ablation.Branch
    trials: list[branch_ablation.Trial]
    images: dict[str, bytes]
    manifest: dict[str, Any]


def render(content: Content) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["nats"] = lambda value: _shown(value, ".4f")
    environment.filters["points"] = _points
    environment.filters["data"] = _data
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    page = environment.get_template(_TEMPLATE)
    return page.render(page=content, verdict=verdict(content), bins=class_scores.BINS)


def verdict(content: Content) -> str:
    """Whether the network uses each branch, a line each."""
    images = sum(score.support for score in content.classes)
    _, rnn, _, cnn, _ = content.trials
    return "\n".join(
        _worth(name, branch, dealt, images)
        for name, branch, dealt in (("RNN", content.rnn, rnn), ("CNN", content.cnn, cnn))
    )


def _worth(
    name: str, branch: branch_ablation.Branch, dealt: branch_ablation.Trial, images: int
) -> str:
    if images < _FEWEST:
        found = f"Whether the network uses its {name} branch cannot be told by {images} images"
    elif dealt.is_significant:
        found = f"The network uses its {name} branch"
    else:
        found = f"The network makes no use of its {name} branch that {images:,} images could show"
    spread = branch.spread / max(branch.magnitude, 1e-12)
    return (
        f"{found}: dealing its outputs out at random among the images costs "
        f"{_points(dealt.top1_cost)} percentage points of top-1 and {_points(dealt.top5_cost)} of "
        f"top-5 (in brackets 95 %). Across images they vary by {spread:.1%} of their size."
    )


def _points(cost: confidence_intervals.Interval) -> str:
    """Percentage points, with the ends of their interval."""
    value, low, high = (_shown(100 * end, ".2f") for end in (cost.value, cost.low, cost.high))
    return f"{value} ({low} to {high})"


def _percent(value: float, digits: int = 2) -> str:
    return _shown(value, f".{digits}%")


def _shown(value: float, form: str) -> str:
    """A figure, or a dash where there is none."""
    return format(value, form) if math.isfinite(value) else "–"


def _data(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
