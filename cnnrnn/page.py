"""The evaluation as one HTML page that needs nothing else: no network, no other file."""

import base64
import dataclasses
import json
import math
import pathlib
from typing import Any

import jinja2

from cnnrnn import branches, scores

_TEMPLATE = "page.html.jinja"


@dataclasses.dataclass(frozen=True)
class Content:
    """All that the page shows.

    `pictures` are PNGs by name: confusion, reliability, top1, top5, and the phases' curves.
    """

    title: str
    subtitle: str
    loss: scores.Interval
    top1: scores.Interval
    top5: scores.Interval
    chance: float
    classes: list[scores.ClassScore]
    confusions: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]
    calibration_error: float
    bins: list[scores.Bin]
    cnn: branches.Branch
    rnn: branches.Branch
    trials: list[branches.Trial]
    pictures: dict[str, bytes]
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
    environment.filters["data"] = _data
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    page = environment.get_template(_TEMPLATE)
    return page.render(page=content, verdict=verdict(content), bins=scores.BINS)


def verdict(content: Content) -> str:
    """What each branch is worth, in a sentence each."""
    trained, rnn, _, cnn, _ = content.trials
    return " ".join(
        _worth(name, branch, trained, dealt, content)
        for name, branch, dealt in (("RNN", content.rnn, rnn), ("CNN", content.cnn, cnn))
    )


def _worth(
    name: str,
    branch: branches.Branch,
    trained: branches.Trial,
    dealt: branches.Trial,
    content: Content,
) -> str:
    lost = {key: getattr(trained, key) - getattr(dealt, key) for key in ("top1", "top5")}
    noise = {
        key: (interval.high - interval.low) / 2
        for key, interval in (("top1", content.top1), ("top5", content.top5))
    }
    idle = all(lost[key] <= noise[key] for key in lost)
    spread = branch.spread / max(branch.magnitude, 1e-12)
    return (
        f"The {name} branch {'says next to nothing about' if idle else 'tells something of'} the "
        f"picture: dealt out at random among the pictures, its outputs cost {lost['top1']:.1%} of "
        f"top-1 and {lost['top5']:.1%} of top-5 (noise: {noise['top1']:.1%} and "
        f"{noise['top5']:.1%}). Across pictures they vary by {spread:.1%} of their size."
    )


def _percent(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}%}"


def _data(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
