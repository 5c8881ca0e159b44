"""Charts of an evaluation, and figures of inputs, predictions and explanations, as PNGs."""

import contextlib
import functools
import io
import itertools
import unicodedata
import warnings

import numpy as np
from matplotlib import figure, font_manager
from matplotlib import text as text_lib

from cnnrnn import shapes

_RIGHT, _WRONG = "#1a7f37", "#b42318"
OVERLAY_OPACITY = 0.55  # of a heat map over its image
# matplotlib's own font has Latin, Greek, Cyrillic, Arabic and few other letters.
_MORE_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic", "Hiragino Sans"),
    *("PingFang SC", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Thai", "Noto Sans Devanagari"),
    *("Noto Sans Hebrew", "Noto Sans Bengali", "Noto Sans Tamil", "Arial Unicode MS"),
)
_MOST_BARS, _MOST_NAMES = 500, 250  # larger charts have more pixels than image viewers accept


def rgb_images(image: np.ndarray) -> np.ndarray:
    """Maps RGB inputs (B, 299, 299, 3) from [-1, 1] to [0, 1]."""
    return np.clip((image + 1.0) / 2.0, 0.0, 1.0)


def gray_images(sequence: np.ndarray) -> np.ndarray:
    """Turns gray sequences into images, with a gap between timesteps.

    Args:
        sequence: (B, 23, 3887) in [-1, 1].

    Returns:
        (B, 23 * 15, 299, 1) in [0, 1]: for each timestep its thirteen pixel rows and two white
        ones.
    """
    timesteps = np.clip((sequence + 1.0) / 2.0, 0.0, 1.0).reshape(
        -1, shapes.TIMESTEPS, shapes.ROWS_PER_TIMESTEP, shapes.IMAGE_SIZE
    )
    spaced = np.pad(timesteps, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=1.0)
    return spaced.reshape(len(sequence), -1, shapes.IMAGE_SIZE, 1)


def predictions_figure(
    image: np.ndarray, true: list[str], predicted: list[str], probability: np.ndarray
) -> bytes:
    """Draws images with their true and predicted classes.

    Args:
        image: (B, 299, 299, 3) in [-1, 1].
        true: B class names.
        predicted: B class names.
        probability: (B,) of the predicted class.

    Returns:
        A PNG.
    """
    columns = min(4, len(image))
    lines = -(-len(image) // columns)
    chart = figure.Figure(figsize=(3 * columns, 3.5 * lines))
    chart.subplots_adjust(0.01, 0.01, 0.99, 0.89 if lines == 1 else 0.94, wspace=0.03, hspace=0.18)
    for i, pixels in enumerate(rgb_images(image)):
        axes = chart.add_subplot(lines, columns, i + 1)
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(
            f"true: {_short(true[i])}\npredicted: {_short(predicted[i])} ({probability[i]:.0%})",
            color=_RIGHT if true[i] == predicted[i] else _WRONG,
            fontsize=9,
        )
    return png(chart)


def accuracy_chart(names: list[str], accuracy: np.ndarray, title: str) -> bytes:
    """Draws the accuracy of each class as a bar, highest first; of many classes only the lowest.

    Args:
        names: class names.
        accuracy: (classes,) from 0 to 1; NaN for a class without images.
        title: heading.

    Returns:
        A PNG, high enough for every name to be legible.
    """
    # barh draws upwards. Classes without images come first, unless others would be left out.
    without_images = -1.0 if len(names) <= _MOST_BARS else 2.0
    order = np.argsort(np.nan_to_num(accuracy, nan=without_images), kind="stable")[:_MOST_BARS]
    if len(order) < len(names):
        title = f"{title}, the {len(order)} lowest of {len(names):,}"
    chart = figure.Figure(figsize=(9, 1.2 + 0.21 * len(order)), layout="constrained")
    axes = chart.add_subplot()
    values = np.nan_to_num(accuracy[order])
    axes.barh(np.arange(len(order)), values, color="#3b6fb6", height=0.75)
    axes.set_yticks(np.arange(len(order)), [_short(names[i], 40) for i in order], fontsize=8)
    for y, index in enumerate(order):
        text = "no images" if np.isnan(accuracy[index]) else f"{accuracy[index]:.0%}"
        axes.text(values[y] + 0.005, y, text, va="center", fontsize=7)
    mean = float(np.nanmean(accuracy))
    axes.axvline(mean, color="#666666", linewidth=1, linestyle="--")
    axes.set(xlim=(0, 1.06), ylim=(-0.8, len(order) - 0.2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    axes.set_title(f"{title} (dashed: mean over classes, {mean:.1%})", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return png(chart)


def confusion_chart(names: list[str], matrix: np.ndarray) -> bytes:
    """Draws the confusion matrix, with class names unless there are very many.

    Args:
        names: class names.
        matrix: (classes, classes) counts, a row for each true class.

    Returns:
        A PNG.
    """
    normalized = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    named = len(names) <= _MOST_NAMES
    side = 3.2 + 0.155 * min(len(names), _MOST_NAMES)
    chart = figure.Figure(figsize=(side + 1, side), layout="constrained")
    axes = chart.add_subplot()
    # Colors follow the square root, or 1 % would be indistinguishable from 0.
    interpolation = "nearest" if named else "auto"
    image = axes.imshow(
        np.sqrt(normalized), cmap="Blues", vmin=0, vmax=1, interpolation=interpolation
    )
    axes.set(xlabel="predicted", ylabel="true")
    if named:
        ticks, short = np.arange(len(names)), [_short(name) for name in names]
        axes.set_xticks(ticks, short, rotation=90, fontsize=7)
        axes.set_yticks(ticks, short, fontsize=7)
        axes.set_xticks(ticks - 0.5, minor=True)
        axes.set_yticks(ticks - 0.5, minor=True)
        axes.grid(which="minor", color="#e6e6e6", linewidth=0.4)
        axes.tick_params(which="minor", length=0)
    if len(names) <= 20:
        for i, j in np.ndindex(matrix.shape):
            color = "white" if normalized[i, j] > 0.4 else "#333333"
            axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=7, color=color)
    bar = chart.colorbar(
        image,
        ax=axes,
        shrink=0.5,
        fraction=0.03,
        pad=0.01,
        ticks=np.sqrt([0, 0.01, 0.1, 0.3, 0.6, 1]),
    )
    bar.ax.set_yticklabels(["0%", "1%", "10%", "30%", "60%", "100%"])
    bar.set_label("proportion of the true class")
    return png(chart)


def reliability_chart(confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray) -> bytes:
    """Draws accuracy against confidence, and the number of images in each bin.

    Args:
        confidence: (bins,) mean confidence.
        accuracy: (bins,) top-1 accuracy.
        count: (bins,) number of images.

    Returns:
        A PNG.
    """
    chart = figure.Figure(figsize=(5, 5.5), layout="constrained")
    above, below = chart.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="calibrated")
    above.plot(confidence, accuracy, color="#3b6fb6", marker="o", label="this network")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False)
    below.bar(confidence, count, width=0.04, color="#3b6fb6")
    below.set(xlabel="confidence (probability of the predicted class)", ylabel="images")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return png(chart)


def curves_chart(points: dict[str, list[tuple[str, int, float]]], title: str) -> bytes:
    """Draws loss, top-1 and top-5 of a phase over its steps.

    Args:
        points: (tag, step, value) of "train" and "validation".
        title: heading.

    Returns:
        A PNG.
    """
    chart = figure.Figure(figsize=(9, 3.2), layout="constrained")
    chart.suptitle(title, fontsize=11)
    for axes, tag in zip(chart.subplots(1, 3), ("loss", "top1", "top5"), strict=True):
        for split, color in (("train", "#9aa5b1"), ("validation", "#3b6fb6")):
            line = [(step, value) for name, step, value in points[split] if name == tag]
            axes.plot(*zip(*line, strict=True) if line else ((), ()), color=color,
                      marker="." if len(line) < 3 else None, label=split)  # fmt: skip
        axes.set(title=tag.replace("top", "top-"), xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return png(chart)


def rate_chart(
    rate: list[float],
    loss: list[float],
    smoothed: list[float],
    suggestion: float | None,
    title: str,
) -> bytes:
    """Draws the loss of training steps over their learning rates, on a logarithmic axis.

    Args:
        rate: of each step, growing.
        loss: of each step.
        smoothed: of each step.
        suggestion: a rate to mark; None: there is none.
        title: heading.

    Returns:
        A PNG.
    """
    chart = figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = chart.add_subplot()
    axes.plot(rate, loss, color="#b8c4d0", linewidth=1, label="loss of the batch")
    axes.plot(rate, smoothed, color="#3b6fb6", linewidth=2, label="smoothed")
    if suggestion is not None:
        axes.axvline(
            suggestion, color=_RIGHT, linestyle="--", label=f"suggestion: {suggestion:.1e}"
        )
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title=title)
    if smoothed:  # after divergence the losses are many times larger than before
        lowest = int(np.argmin(smoothed))
        low, high = min(loss), max(*smoothed[: lowest + 1], float(np.median(loss)))
        span = high - low or 1.0
        axes.set_ylim(low - 0.1 * span, high + 0.5 * span)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return png(chart)


def training_figure(image: np.ndarray, sequence: np.ndarray, titles: list[str]) -> bytes:
    """Draws training images as the network sees them: the CNN's view and, smaller, the RNN's.

    Args:
        image: (B, S, S, 3) in [-1, 1].
        sequence: (B, 23, 3887) in [-1, 1].
        titles: B, over each image.

    Returns:
        A PNG.
    """
    columns = min(4, len(image))
    lines = -(-len(image) // columns)
    chart = figure.Figure(figsize=(3.7 * columns, 2.75 * lines), layout="constrained")
    grid = chart.subplots(lines, 2 * columns, squeeze=False, width_ratios=(3, 1.1) * columns)
    for axes in grid.flat:
        axes.set_axis_off()
    gray = sequence.reshape(-1, shapes.IMAGE_SIZE, shapes.IMAGE_SIZE)
    for i, title in enumerate(titles):
        cnn, rnn = grid[i // columns, 2 * (i % columns) :][:2]
        cnn.imshow(rgb_images(image[i]))
        cnn.set_title("\n".join(_short(line, 34) for line in title.split("\n")), fontsize=9)
        rnn.imshow(rgb_images(gray[i]), cmap="gray", vmin=0, vmax=1)
        rnn.set_anchor("SW")
    return png(chart)


def explanation_figure(
    image: np.ndarray, classes: list[tuple[str, float, np.ndarray | None, np.ndarray | None]]
) -> bytes:
    """Draws an image and, for each class, Grad-CAM of the CNN and saliency of the RNN.

    Args:
        image: (299, 299, 3) in [-1, 1].
        classes: name, probability, Grad-CAM (h, w) and saliency (23,), both from 0 to 1, or None.

    Returns:
        A PNG, one line per class.
    """
    pixels, size = rgb_images(image), shapes.IMAGE_SIZE
    gray = pixels.mean(axis=-1)
    extent = (0, size, size, 0)
    columns = 1 + sum(heat is not None for heat in classes[0][2:])
    chart = figure.Figure(figsize=(3 * columns, 3.3 * len(classes)), layout="constrained")
    grid = chart.subplots(len(classes), columns, squeeze=False)
    for line, (name, probability, cam, saliency) in zip(grid, classes, strict=True):
        original, *others = line
        original.imshow(pixels, extent=extent)
        original.set_title(f"{_short(name, 30)} ({probability:.1%})", fontsize=10)
        drawn = [(cam, "bilinear", "CNN: Grad-CAM")] if cam is not None else []
        if saliency is not None:
            drawn += [(saliency[:, np.newaxis], "nearest", "RNN: saliency of its 23 timesteps")]
        for axes, (heat, interpolation, title) in zip(others, drawn, strict=True):
            axes.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=extent)
            axes.imshow(
                heat, cmap="inferno", alpha=OVERLAY_OPACITY, vmin=0, vmax=1, extent=extent,
                interpolation=interpolation,
            )  # fmt: skip
            axes.set_title(title, fontsize=10)
        for axes in line:
            axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
            axes.set_axis_off()
    return png(chart)


def _short(name: str, length: int = 24) -> str:
    """Truncates a class name, and escapes '$', which would start math text in matplotlib.

    Args:
        name: of the class.
        length: in Latin letters; a Chinese, Japanese or Korean one is as wide as two.
    """
    ends = list(itertools.accumulate(map(_width, name), initial=0))
    if ends[-1] > length:
        name = name[: sum(end < length for end in ends) - 1] + "…"
    return name.replace("$", r"\$")


def _width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):  # drawn over the letter before
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "FW" else 1


@functools.cache
def _families() -> list[str]:
    """The font and, for letters that it lacks, those of `_MORE_FONTS` that are installed."""
    fonts = font_manager.fontManager
    known = {font.fname for font in fonts.ttflist}  # from a cache: others were installed since
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(Exception):  # one that matplotlib cannot read
            fonts.addfont(path)
    installed = {font.name for font in fonts.ttflist}
    return ["sans-serif", *(name for name in _MORE_FONTS if name in installed)]


def png(chart: figure.Figure) -> bytes:
    """A figure as a PNG."""
    for drawn in chart.findobj(text_lib.Text):
        drawn.set_fontfamily(_families())
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that no font has are drawn as boxes; a warning for each would not help.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        chart.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
