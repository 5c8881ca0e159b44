"""Charts and thumbnails: sizes, and what they show."""

import io

import numpy as np
import PIL.Image
import pytest
from matplotlib import figure

from cnnrnn.evaluation import charts, thumbnails


def pixels_of(encoded):
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.mark.parametrize("classes", [2, 30])
def test_accuracy_charts_have_room_for_every_class(classes):
    names = [f"日本 {i}, also known as $omething else and_more" for i in range(classes)]
    accuracy = np.linspace(0, 1, classes)
    accuracy[0] = np.nan
    image = pixels_of(charts.accuracy_chart(names, accuracy, "Top-1 accuracy by class"))
    assert image.shape[0] > 20 * classes


@pytest.mark.thorough
def test_charts_of_a_thousand_classes_have_less_than_32_megapixels(monkeypatch):
    """Their sizes only: drawing them takes eight seconds."""
    pixels = []

    def measure(chart, file, *, format, dpi):
        pixels.append(np.prod(chart.get_size_inches() * dpi))

    monkeypatch.setattr(figure.Figure, "savefig", measure)
    names = [f"species {i}" for i in range(1000)]
    accuracy = np.linspace(0, 1, len(names))
    matrix = np.eye(len(names), dtype=np.int64)
    charts.accuracy_chart(names, accuracy, "Top-1")
    charts.confusion_chart(names, matrix)
    assert len(pixels) == 2 and 2**20 < min(pixels) and max(pixels) < 2**25


@pytest.mark.parametrize("classes, bars", [(4, ["-", "-", "20%", "90%"]), (9, ["20%", "90%", "-"])])
def test_classes_without_images_do_not_displace_others(monkeypatch, classes, bars):
    drawn = []
    monkeypatch.setattr(charts, "_MOST_BARS", min(classes, len(bars)))
    monkeypatch.setattr(charts, "png", drawn.append)
    accuracy = np.full(classes, np.nan)
    accuracy[:2] = 0.9, 0.2
    charts.accuracy_chart([f"class {i}" for i in range(classes)], accuracy, "Top-1")
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert [text.replace("no images", "-") for text in texts] == bars


@pytest.mark.parametrize(
    "loss",
    [
        [0.03, *np.tile([0.4, 0.6, 1.0], 33)],  # the first batch is an easy one
        [0.5, *np.linspace(0.6, 1.2, 99)],  # never falls
        [3.0, *np.linspace(3, 1, 79), *np.geomspace(1, 1e6, 20)],  # diverges
        [2.0],
        [2.0, 2.0],
    ],
)
def test_the_curve_of_the_rates_lies_in_its_chart(loss, monkeypatch):
    drawn = []
    monkeypatch.setattr(charts, "png", lambda chart: drawn.append(chart) or b"")
    smoothed = [float(np.mean(loss[: n + 1])) for n in range(len(loss))]
    rates = np.geomspace(1e-7, 10, len(loss)).tolist()
    charts.rate_chart(rates, list(loss), smoothed, None, "")
    low, high = drawn[0].axes[0].get_ylim()
    assert low < min(smoothed) and low < np.median(loss) < high <= 10


def test_installed_fonts_draw_letters_that_the_own_font_lacks(monkeypatch):
    monkeypatch.setattr(charts, "_MORE_FONTS", ("No Such Font", "DejaVu Serif"))
    charts._families.cache_clear()
    chart = figure.Figure()
    drawn = chart.text(0.5, 0.5, "name")
    charts.png(chart)
    charts._families.cache_clear()
    assert drawn.get_fontfamily() == ["sans-serif", "DejaVu Serif"]


def test_the_gray_image_shows_the_timesteps_of_the_sequence():
    sequence = np.linspace(-1, 1, 23)[None, :, None].repeat(3887, axis=2)
    image = charts.gray_images(sequence.astype(np.float32))
    assert image.shape == (1, 23 * 15, 299, 1)
    assert image[0, 0].max() == 0 and image[0, 13].min() == 1  # first timestep, then the gap
    assert np.all(np.diff(image[0, ::15, 0, 0]) > 0)


@pytest.mark.parametrize(
    "name, short",
    [
        ("abcdefghij", "abcdefghij"),
        ("abcdefghijk", "abcdefghi…"),
        ("日本語日本", "日本語日本"),
        ("日本語日本語", "日本語日…"),
        ("a日本語日本語", "a日本語日…"),
        ("e\N{COMBINING ACUTE ACCENT}" * 10, "e\N{COMBINING ACUTE ACCENT}" * 10),
        ("e\N{COMBINING ACUTE ACCENT}" * 11, "e\N{COMBINING ACUTE ACCENT}" * 9 + "…"),
        ("costs $5 or", r"costs \$5 …"),
        ("12345678$ or", r"12345678\$…"),
        ("$" * 10, r"\$" * 10),
    ],
)
def test_a_name_is_shortened_by_its_width(name, short):
    assert charts._short(name, 10) == short


def test_predictions_of_any_number_of_images_are_drawn():
    heights, widths = [], []
    for count in (1, 4, 5):
        png = charts.predictions_figure(
            np.zeros((count, 299, 299, 3)), ["a"] * count, ["b"] * count, np.full(count, 0.5)
        )
        height, width = pixels_of(png).shape[:2]
        heights.append(height)
        widths.append(width)
    assert heights[1:] == [heights[0], 2 * heights[0]]
    assert widths[1:] == [4 * widths[0], 4 * widths[0]]


def test_an_explained_thumbnail_is_the_image_and_the_two_maps():
    cam, saliency = np.zeros((10, 10)), np.zeros(23)
    cam[:, 5:], saliency[:11] = 1, 1
    jpeg = thumbnails.explained_thumbnail(np.full((299, 299, 3), 0.5), cam, saliency)
    brightness = pixels_of(jpeg).astype(float).mean(axis=-1)
    assert brightness.shape == (112, 336)
    assert np.ptp(brightness[:, :100]) < 5
    assert brightness[:, 190:210].mean() > brightness[:, 125:145].mean() + 50  # right half
    assert brightness[:45, 235:325].mean() > brightness[67:, 235:325].mean() + 50  # upper half


def test_explanations_have_no_panel_for_a_branch_that_the_network_lacks():
    image, cam, saliency = np.zeros((299, 299, 3)), np.zeros((10, 10)), np.zeros(23)
    widths = {}
    for maps in ((cam, saliency), (cam, None), (None, saliency)):
        thumbnail = pixels_of(thumbnails.explained_thumbnail(image, *maps))
        figure = pixels_of(charts.explanation_figure(image, [("a", 0.5, *maps)]))
        widths[tuple(heat is not None for heat in maps)] = thumbnail.shape[1], figure.shape[1]
    both, one = (336, 990), (224, 660)
    assert widths == {(True, True): both, (True, False): one, (False, True): one}
