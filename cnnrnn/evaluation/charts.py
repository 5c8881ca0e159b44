"""Images for people: what the network sees, what it says, and the charts per label."""

import io
import warnings

import matplotlib
import numpy as np
import PIL.Image
from matplotlib import figure

from cnnrnn import shapes

_RIGHT, _WRONG = "#1a7f37", "#b42318"
_OPACITY = 0.55  # of a map over its image
_MOST_BARS, _MOST_NAMES = 500, 250  # beyond, a chart has more pixels than programs read


def rgb_images(image: np.ndarray) -> np.ndarray:
    """The RGB input as images: (B, 299, 299, 3) in [-1, 1] -> the same in [0, 1]."""
    return np.clip((image + 1.0) / 2.0, 0.0, 1.0)


def gray_images(rows: np.ndarray) -> np.ndarray:
    """The gray sequence as images, its timesteps set apart by thin gaps.

    Args:
        rows: (B, 23, 3887) in [-1, 1].

    Returns:
        (B, 23 * 15, 299, 1) in [0, 1]: each timestep's thirteen rows, then two white ones.
    """
    timesteps = np.clip((rows + 1.0) / 2.0, 0.0, 1.0).reshape(
        -1, shapes.TIMESTEPS, shapes.ROWS_PER_TIMESTEP, shapes.IMAGE_SIZE
    )
    spaced = np.pad(timesteps, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=1.0)
    return spaced.reshape(len(rows), -1, shapes.IMAGE_SIZE, 1)


def predictions_figure(
    image: np.ndarray, truth: list[str], predicted: list[str], probability: np.ndarray
) -> bytes:
    """Images with what they are and what they were taken for, as one PNG.

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
    for i, shown in enumerate(rgb_images(image)):
        axes = chart.add_subplot(lines, columns, i + 1)
        axes.imshow(shown)
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

    Of very many labels it shows the lowest.

    Args:
        names: class names.
        accuracy: (classes,) from 0 to 1; NaN where a class has no example.
        title: heading.
    """
    order = np.argsort(np.nan_to_num(accuracy, nan=-1.0), kind="stable")  # barh draws upwards
    order = order[:_MOST_BARS]
    if len(order) < len(names):
        title = f"{title}, the {len(order)} lowest of {len(names):,}"
    chart = figure.Figure(figsize=(9, 1.2 + 0.21 * len(order)), layout="constrained")
    axes = chart.add_subplot()
    values = np.nan_to_num(accuracy[order])
    axes.barh(np.arange(len(order)), values, color="#3b6fb6", height=0.75)
    axes.set_yticks(np.arange(len(order)), [_short(names[i], 40) for i in order], fontsize=8)
    for y, index in enumerate(order):
        text = "no examples" if np.isnan(accuracy[index]) else f"{accuracy[index]:.0%}"
        axes.text(values[y] + 0.005, y, text, va="center", fontsize=7)
    mean = float(np.nanmean(accuracy))
    axes.axvline(mean, color="#666666", linewidth=1, linestyle="--")
    axes.set(xlim=(0, 1.06), ylim=(-0.8, len(order) - 0.2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    axes.set_title(f"{title} (mean over labels {mean:.1%}, dashed)", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(chart)


def confusion_chart(names: list[str], matrix: np.ndarray) -> bytes:
    """The confusion matrix with every name beside it, as PNG; of very many classes without names.

    Args:
        names: class names.
        matrix: (classes, classes) counts, a row for each true class.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    named = len(names) <= _MOST_NAMES
    side = 3.2 + 0.155 * min(len(names), _MOST_NAMES)
    chart = figure.Figure(figsize=(side + 1, side), layout="constrained")
    axes = chart.add_subplot()
    # The root brings out the few among many: one in a hundred would be next to white.
    interpolation = "nearest" if named else "auto"
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation=interpolation)
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
            color = "white" if share[i, j] > 0.4 else "#333333"
            axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=7, color=color)
    bar = chart.colorbar(
        image,
        ax=axes,
        shrink=0.5,
        fraction=0.03,
        pad=0.01,
        ticks=np.sqrt([0, 0.01, 0.1, 0.3, 0.6, 1]),
    )
    bar.ax.set_yticklabels(["0", "1 %", "10 %", "30 %", "60 %", "100 %"])
    bar.set_label("share of the true class")
    return _png(chart)


def reliability_chart(confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray) -> bytes:
    """Accuracy against confidence, and how many images each point stands for, as PNG.

    Args:
        confidence, accuracy, count: (bins,) each.
    """
    chart = figure.Figure(figsize=(5, 5.5), layout="constrained")
    above, below = chart.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="calibrated")
    above.plot(confidence, accuracy, color="#3b6fb6", marker="o", label="this network")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False)
    below.bar(confidence, count, width=0.04, color="#3b6fb6")
    below.set(xlabel="confidence: probability of the first class", ylabel="images")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return _png(chart)


def curves_chart(points: dict[str, list[tuple[str, int, float]]], title: str) -> bytes:
    """Loss and accuracies of a phase over its steps, as PNG.

    Args:
        points: (tag, step, value) by split.
        title: heading.
    """
    chart = figure.Figure(figsize=(9, 3.2), layout="constrained")
    chart.suptitle(title, fontsize=11)
    for axes, tag in zip(chart.subplots(1, 3), ("loss", "top1", "top5"), strict=True):
        for split, color in (("train", "#9aa5b1"), ("validation", "#3b6fb6")):
            line = [(step, value) for name, step, value in points[split] if name == tag]
            axes.plot(*zip(*line, strict=True) if line else ((), ()), color=color,
                      marker="." if len(line) < 3 else None, label=split)  # fmt: skip
        axes.set(title=tag, xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _png(chart)


def explanation_figure(
    image: np.ndarray, classes: list[tuple[str, float, np.ndarray, np.ndarray]]
) -> bytes:
    """An image, and for each class where the two branches found it, as one PNG.

    Args:
        image: (299, 299, 3) in [-1, 1].
        classes: name, probability, the CNN's map (h, w) and the RNN's timesteps (23,), 0 to 1.
    """
    pixels = rgb_images(image)
    gray = pixels.mean(axis=-1)
    size = shapes.IMAGE_SIZE
    chart = figure.Figure(figsize=(9, 3.3 * len(classes)), layout="constrained")
    grid = chart.subplots(len(classes), 3, squeeze=False, width_ratios=(3, 3, 3))
    for line, (name, probability, cam, timesteps) in zip(grid, classes, strict=True):
        original, convolutions, rows = line
        original.imshow(pixels, extent=(0, size, size, 0))
        original.set_title(f"{_short(name, 30)} ({probability:.1%})", fontsize=10)
        convolutions.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=(0, size, size, 0))
        convolutions.imshow(
            cam, cmap="inferno", alpha=_OPACITY, vmin=0, vmax=1, extent=(0, size, size, 0),
            interpolation="bilinear",
        )  # fmt: skip
        convolutions.set_title("CNN: Grad-CAM", fontsize=10)
        rows.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=(0, size, size, 0))
        rows.imshow(
            timesteps[:, np.newaxis], cmap="inferno", alpha=_OPACITY, vmin=0, vmax=1,
            extent=(0, size, size, 0), aspect="auto", interpolation="nearest",
        )  # fmt: skip
        rows.set_title("RNN: saliency of its 23 timesteps", fontsize=10)
        for axes in line:
            axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
            axes.set_axis_off()
    return _png(chart)


def thumbnail(image: np.ndarray, side: int = 112) -> bytes:
    """A small JPEG of one RGB input, (299, 299, 3) in [-1, 1]."""
    return _jpeg(_small(rgb_images(image), side))


def explained_thumbnail(
    image: np.ndarray, cam: np.ndarray, timesteps: np.ndarray, side: int = 112
) -> bytes:
    """The image, its Grad-CAM overlay and its saliency overlay, side by side as one JPEG.

    Args:
        image: (299, 299, 3) in [-1, 1].
        cam: (h, w) from 0 to 1.
        timesteps: (23,) from 0 to 1.
        side: pixels of each of the three.
    """
    pixels = _small(rgb_images(image), side)
    gray = pixels.mean(axis=-1, keepdims=True)
    heat = [
        _small(matplotlib.colormaps["inferno"](values)[..., :3], side, resample)
        for values, resample in (
            (cam, PIL.Image.Resampling.BILINEAR),
            (timesteps[:, np.newaxis], PIL.Image.Resampling.NEAREST),
        )
    ]
    overlaid = [(1 - _OPACITY) * gray + _OPACITY * colors for colors in heat]
    return _jpeg(np.concatenate([pixels, *overlaid], axis=1))


def _small(
    image: np.ndarray, side: int, resample: PIL.Image.Resampling = PIL.Image.Resampling.BICUBIC
) -> np.ndarray:
    """(h, w, 3) in [0, 1] -> (side, side, 3)."""
    pixels = PIL.Image.fromarray((image * 255).round().astype(np.uint8))
    return np.asarray(pixels.resize((side, side), resample)) / 255


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


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
