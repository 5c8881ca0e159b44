"""train_batch.png: both views of each image, with its labels and shares."""

import io

import numpy as np
import PIL.Image
import pytest

from cnnrnn.evaluation import charts
from cnnrnn.training import train_batch

NAMES = ("cat", "dog")


def batch_of(count, size=160):
    return {
        "image": np.full((count, size, size, 3), [1.0, -1.0, -1.0], np.float32),  # red
        "sequence": np.full((count, 23, 3887), -1 / 3, np.float32),
        "label": np.arange(count) % 2,
    }


@pytest.fixture
def titles(monkeypatch):
    """Records the titles instead of drawing them."""
    drawn = []

    def training_figure(image, sequence, titles):
        drawn.extend(titles)
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(buffer, "PNG")
        return buffer.getvalue()

    monkeypatch.setattr(charts, "training_figure", training_figure)
    return drawn


@pytest.mark.parametrize("count", [1, 17])
@pytest.mark.thorough
def test_both_views_of_at_most_sixteen_images_are_drawn(tmp_path, count):
    path = tmp_path / "run" / "train_batch.png"
    pixels = train_batch.write(path, batch_of(count), NAMES).numpy()
    np.testing.assert_array_equal(pixels[0], PIL.Image.open(path).convert("RGB"))
    shown = min(count, 16)
    for color, least in (((255, 0, 0), 40_000), ((85, 85, 85), 5_000)):
        area = np.all(np.abs(pixels[0].astype(int) - color) <= 1, axis=-1).sum()
        assert least < area / shown < 4 * least


def test_labels_are_named(tmp_path, titles):
    train_batch.write(tmp_path / "a.png", batch_of(3), NAMES)
    assert titles == ["cat", "dog", "cat"]


def test_labels_of_mixed_images_are_named_with_their_shares(tmp_path, titles):
    mixed = {"other_label": np.array([1, 0, 0, 1]), "share": np.array([0.7, 0.5, 0.6, 0.999])}
    batch = {**batch_of(4), "label": np.array([0, 1, 0, 0]), **mixed}
    train_batch.write(tmp_path / "a.png", batch, NAMES)
    assert titles == ["0.70 cat\n+ 0.30 dog", "0.50 dog\n+ 0.50 cat", "cat", "cat"]
