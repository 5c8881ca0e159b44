"""Augmentation: flips, crops, colors and erasing, and that keys alone decide them."""

import functools

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

from cnnrnn.preprocessing import augmentation as augmentation_lib
from cnnrnn.preprocessing import rand_augment, random_keys
from cnnrnn.preprocessing import views as views_lib

# Takes long to trace; what it adds has tests of its own.
STRONG = pytest.param("strong", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def photograph() -> tf.Tensor:
    """(427, 640, 3) uint8, a photograph that comes with scikit-learn."""
    return tf.constant(sklearn.datasets.load_sample_image("china.jpg"))


@pytest.fixture(scope="module")
def rgb(photograph) -> tf.Tensor:
    return views_lib.Preprocessing().rgb(photograph)


def key(number, seed=0, purpose=random_keys.AUGMENTATION):
    return random_keys.key(seed, purpose, tf.constant(number, tf.int64))


@functools.cache
def traced(stage, policy):
    """A stage of the augmentation, as in a pipeline."""
    return tf.function(getattr(augmentation_lib.Augmentation(policy), stage), reduce_retracing=True)


def test_keys_differ_by_seed_purpose_and_number():
    keys = {
        tuple(key(number, seed, purpose).numpy())
        for number in range(5)
        for seed in range(3)
        for purpose in (random_keys.AUGMENTATION, random_keys.MIXING, random_keys.DROPOUT)
    }
    keys |= {tuple(each.numpy()) for each in random_keys.split(key(0), 3)}
    assert len(keys) == 48


def test_flips_change_no_colors():
    assert not augmentation_lib.Augmentation("flip").changes_colors


def test_half_of_the_images_are_flipped_and_not_changed_otherwise():
    image = tf.constant(np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3))
    flipped = 0
    for number in range(400):
        result = traced("geometry", "flip")(image, key(number)).numpy()
        is_flipped = not np.array_equal(result, image)
        np.testing.assert_array_equal(result, image[:, ::-1] if is_flipped else image)
        flipped += is_flipped
    assert abs(flipped - 200) < 5 * 10  # five standard deviations


@pytest.mark.parametrize("policy", ["standard", STRONG])
def test_crops_are_within_their_bounds_and_anywhere(policy):
    height, width = 90, 120
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = tf.constant(np.stack([y, x, 0 * x], axis=-1).astype(np.uint8))
    areas, tops, lefts = [], [], []
    for number in range(200):
        crop = traced("geometry", policy)(image, key(number)).numpy().astype(int)
        if crop[0, 0, 1] > crop[0, -1, 1]:
            crop = crop[:, ::-1]
        top, left = crop[0, 0, :2]
        np.testing.assert_array_equal(
            crop, image[top : top + crop.shape[0], left : left + crop.shape[1]]
        )
        areas.append(crop.shape[0] * crop.shape[1] / (height * width))
        tops.append(top)
        lefts.append(left)
        assert 0.73 < crop.shape[1] / crop.shape[0] < 1.37
    assert 0.33 < min(areas) < 0.45 and 0.85 < max(areas) <= 1  # whole pixels
    assert min(tops) == 0 and max(tops) > 20 and max(lefts) > 20


def test_very_narrow_images_can_be_cropped():
    image = tf.zeros((1, 300, 3), tf.uint8)
    assert traced("geometry", "standard")(image, key(0)).shape[2] == 3


def test_standard_changes_brightness_contrast_and_saturation(rgb):
    changed = [traced("colors", "standard")(rgb, key(number)).numpy() for number in range(30)]
    assert all(np.abs(image).max() <= 1 for image in changed)
    original = rgb.numpy()
    brightness = [image.mean() - original.mean() for image in changed]
    contrast = [image.std() / original.std() for image in changed]
    saturation = [np.ptp(image, axis=-1).mean() for image in changed]
    assert min(brightness) < -0.1 and max(brightness) > 0.1
    assert min(contrast) < 0.8 and max(contrast) > 1.1
    assert min(saturation) < 0.8 * np.ptp(original, axis=-1).mean() < 0.9 * max(saturation)


@pytest.mark.thorough
def test_strong_also_augments_and_erases_a_quarter(rgb, monkeypatch):
    monkeypatch.setattr(rand_augment, "apply", lambda image, _: image)
    colors = tf.function(augmentation_lib.Augmentation("strong").colors)
    keys = [key(number) for number in range(200)]
    shares = []
    for each in keys:
        gray = np.all(colors(tf.fill((299, 299, 3), 0.9), each).numpy() == 0.0, axis=-1)
        rows, columns = gray.any(axis=1), gray.any(axis=0)
        assert gray.sum() == rows.sum() * columns.sum()  # a rectangle
        shares.append(gray.mean())
    erased = np.array([share for share in shares if share > 0])
    assert abs(len(erased) - 50) < 5 * 6.2
    assert 0.015 < erased.min() < 0.08 and 0.2 < erased.max() < 0.35


@pytest.mark.parametrize("policy", ["flip", "standard", STRONG])
def test_the_key_alone_decides(photograph, policy):
    def augmented(number, seed=0):
        image = traced("geometry", policy)(photograph, key(number, seed))
        rgb = views_lib.Preprocessing().rgb(image)
        return traced("colors", policy)(rgb, key(number, seed)).numpy()

    first = augmented(5)
    others = [augmented(6), augmented(7), augmented(8), augmented(5, seed=1)]
    np.testing.assert_array_equal(augmented(5), first)
    assert any(not np.array_equal(other, first) for other in others)
