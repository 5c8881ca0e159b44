"""RandAugment's operations, compared with Pillow's, and the choice among them."""

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import sklearn.datasets
import tensorflow as tf

from cnnrnn.preprocessing import rand_augment
from cnnrnn.preprocessing import views as views_lib


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(299, 299, 3) uint8."""
    photograph = tf.constant(sklearn.datasets.load_sample_image("china.jpg"))
    rgb = views_lib.Preprocessing().rgb(photograph).numpy()
    return ((rgb + 1) * 127.5).round().astype(np.uint8)


def applied(operation, pixels, level):
    image = tf.constant(pixels / np.float32(255))
    return np.clip(operation(image, tf.constant(level, tf.float32)), 0, 1) * 255


def enhanced(kind):
    return lambda image, level: kind(image).enhance(1 + 0.9 * level)


PILLOW = {
    "_identity": lambda image, _: image,
    "_brightness": enhanced(PIL.ImageEnhance.Brightness),
    "_color": enhanced(PIL.ImageEnhance.Color),
    "_contrast": enhanced(PIL.ImageEnhance.Contrast),
    "_sharpness": enhanced(PIL.ImageEnhance.Sharpness),
    "_posterize": lambda image, level: PIL.ImageOps.posterize(image, 8 - round(4 * abs(level))),
    "_solarize": lambda image, level: PIL.ImageOps.solarize(image, round(255 * (1 - abs(level)))),
    "_autocontrast": lambda image, _: PIL.ImageOps.autocontrast(image),
    "_equalize": lambda image, _: PIL.ImageOps.equalize(image),
}


@pytest.mark.parametrize("level", [0.9, -0.5])
@pytest.mark.parametrize("name", PILLOW)
def test_colors_change_as_in_pillow(pixels, name, level):
    pixels = pixels // 2 + 40  # so that contrast can be stretched
    expected = np.asarray(PILLOW[name](PIL.Image.fromarray(pixels), level), np.float32)
    result = applied(getattr(rand_augment, name), pixels, level)
    inner = (slice(1, -1), slice(1, -1))  # Pillow does not sharpen the edges
    assert np.abs(result[inner] - expected[inner]).mean() < 0.7
    assert np.percentile(np.abs(result[inner] - expected[inner]), 99) < 3


def test_equalize_and_autocontrast_keep_an_image_of_one_color():
    pixels = np.full((299, 299, 3), 90, np.uint8)
    for operation in (rand_augment._equalize, rand_augment._autocontrast):
        np.testing.assert_allclose(applied(operation, pixels, 0.3), pixels, atol=1e-3)


def moved(name, level):
    """Where the white pixels of three small squares at (x, y) from the center are moved to."""
    result = []
    for x, y in ((60, 0), (0, 60), (0, 0)):
        pixels = np.zeros((299, 299, 3), np.uint8)
        pixels[149 + y - 4 : 149 + y + 5, 149 + x - 4 : 149 + x + 5] = 255
        image = applied(getattr(rand_augment, name), pixels, level)[..., 0]
        rows, columns = np.nonzero(image > 200)
        result.append((columns.mean() - 149, rows.mean() - 149))
    return np.array(result)


def test_images_are_moved_around_their_center():
    level, tolerance = 0.5, 1.0
    unmoved = np.array([(60, 0), (0, 60), (0, 0)])
    for name, expected in (
        ("_shear_x", [(60, 0), (-9, 60), (0, 0)]),
        ("_shear_y", [(60, -9), (0, 60), (0, 0)]),
        ("_translate_x", unmoved - [299 * 150 / 331 / 2, 0]),
        ("_translate_y", unmoved - [0, 299 * 150 / 331 / 2]),
        ("_rotate", np.array([(58, -15.5), (15.5, 58), (0, 0)])),
    ):
        np.testing.assert_allclose(moved(name, level), expected, atol=tolerance, err_msg=name)


def test_what_is_moved_in_from_outside_is_gray(pixels):
    result = applied(rand_augment._translate_x, pixels, 0.5)
    np.testing.assert_allclose(result[:, -60:], 127.5)


@pytest.mark.thorough
def test_two_operations_are_drawn_from_all(monkeypatch):
    """Here each adds a digit of its own, so that the result tells which were applied."""
    count = len(rand_augment.OPERATIONS)
    operations = [
        lambda image, level, number=number: image / 100 + (number + 1) / 100
        for number in range(count)
    ]
    monkeypatch.setattr(rand_augment, "OPERATIONS", operations)
    apply = tf.function(rand_augment.apply)
    drawn = set()
    for seed in range(150):
        value = apply(tf.zeros((299, 299, 3)), tf.constant([seed, 0], tf.int64))[0, 0, 0].numpy()
        second, first = divmod(round(float(value) * 10_000), 100)
        assert float(value) * 10_000 == pytest.approx(100 * second + first, abs=0.2)
        assert {first, second} <= set(range(1, count + 1))
        drawn |= {first - 1, second - 1}
        assert apply(tf.zeros((299, 299, 3)), tf.constant([seed, 0], tf.int64))[0, 0, 0] == value
    assert drawn == set(range(count))


def test_both_directions_are_drawn(monkeypatch):
    monkeypatch.setattr(rand_augment, "OPERATIONS", [lambda image, level: image * 0 + level + 0.5])
    apply = tf.function(rand_augment.apply)
    values = {
        round(float(apply(tf.zeros((299, 299, 3)), tf.constant([n, 0], tf.int64))[0, 0, 0]), 3)
        for n in range(20)
    }
    assert values == {0.2, 0.8}
