"""Pictures for people: what the network sees, what it says, and the charts per label."""

import io
import warnings

import numpy as np
from matplotlib import figure

from cnnrnn import shapes

_RIGHT, _WRONG = "#1a7f37", "#b42318"


def rgb_pictures(image: np.ndarray) -> np.ndarray:
    """The RGB input as pictures: (B, 299, 299, 3) in [-1, 1] -> the same in [0, 1]."""
    return np.clip((image + 1.0) / 2.0, 0.0, 1.0)


def gray_pictures(rows: np.ndarray) -> np.ndarray:
    """The gray sequence as pictures, its timesteps set apart by thin gaps.

    Args:
        rows: (B, 23, 3887) in [-1, 1].

    Returns:
        (B, 23 * 15, 299, 1) in [0, 1]: each timestep's thirteen rows, then two white ones.
    """
    bands = np.clip((rows + 1.0) / 2.0, 0.0, 1.0).reshape(
        -1, shapes.TIMESTEPS, shapes.ROWS_PER_TIMESTEP, shapes.IMAGE_SIZE
    )
    spaced = np.pad(bands, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=1.0)
    return spaced.reshape(len(rows), -1, shapes.IMAGE_SIZE, 1)


def predictions_figure(
    image: np.ndarray, truth: list[str], predicted: list[str], probability: np.ndarray
) -> bytes:
    """Pictures with what they are and what they were taken for, as one PNG.

    Args:
        image: (B, 299, 299, 3) in [-1, 1].
        truth: B class names.
        predicted: B class names.
        probability: (B,) of the predicted class.
    """
    columns = min(4, len(image))
    lines = -(-len(image) // columns)
    chart = figure.Figure(figsize=(3 * columns, 3.5 * lines))
    chart.subplots_adjust(0.01, 0.01, 0.99, 0.89 if lines == 1 else 0.94, wspace=0.03, hspace=0.18)
    for i, picture in enumerate(rgb_pictures(image)):
        axes = chart.add_subplot(lines, columns, i + 1)
        axes.imshow(picture)
        axes.set_axis_off()
        right = truth[i] == predicted[i]
        axes.set_title(
            f"true: {_short(truth[i])}\npredicted: {_short(predicted[i])} ({probability[i]:.0%})",
            color=_RIGHT if right else _WRONG,
            fontsize=9,
        )
    return _png(chart)


def label_chart(names: list[str], accuracy: np.ndarray, title: str) -> bytes:
    """A bar per label, best first, tall enough that every name can be read; as PNG.

    Args:
        names: class names.
        accuracy: (classes,) from 0 to 1; NaN where a class has no example.
        title: heading.
    """
    order = np.argsort(np.nan_to_num(accuracy, nan=-1.0), kind="stable")  # barh draws upwards
    chart = figure.Figure(figsize=(9, 1.2 + 0.21 * len(names)), layout="constrained")
    axes = chart.add_subplot()
    values = np.nan_to_num(accuracy[order])
    axes.barh(np.arange(len(names)), values, color="#3b6fb6", height=0.75)
    axes.set_yticks(np.arange(len(names)), [_short(names[i], 40) for i in order], fontsize=8)
    for y, index in enumerate(order):
        text = "no examples" if np.isnan(accuracy[index]) else f"{accuracy[index]:.0%}"
        axes.text(values[y] + 0.005, y, text, va="center", fontsize=7)
    mean = float(np.nanmean(accuracy))
    axes.axvline(mean, color="#666666", linewidth=1, linestyle="--")
    axes.set(xlim=(0, 1.06), ylim=(-0.8, len(names) - 0.2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    axes.set_title(f"{title} (mean over labels {mean:.1%}, dashed)", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(chart)


def _short(name: str, length: int = 24) -> str:
    """Cuts a name to fit; class names like 'goldfish, Carassius auratus' keep their first part."""
    # A '$' would start matplotlib's mathematics.
    name = name.replace("$", r"\$")
    return name if len(name) <= length else name[: length - 1] + "…"


def _png(chart: figure.Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; a line per letter would not mend it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        chart.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
