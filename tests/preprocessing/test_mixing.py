"""Mixup and CutMix: shares, partners, rectangles, and both views alike."""

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn.preprocessing import mixing as mixing_lib
from cnnrnn.preprocessing import random_keys
from cnnrnn.preprocessing import views as views_lib


def mixed(mixing, values, size=299, seed=0):
    """Mixes images of one color each, (B,) values, in a pipeline; labels are their numbers."""
    count = len(values)

    def example(number):
        rgb = tf.fill((299, 299, 3), tf.gather(tf.constant(values, tf.float32), number))
        inputs = views_lib.Preprocessing(image_size=size).inputs_of(rgb)
        key = random_keys.key(seed, random_keys.MIXING, number)
        return {**inputs, "label": number, **mixing.draw(key)}

    dataset = tf.data.Dataset.range(count).map(example).batch(count, drop_remainder=True)
    return next(dataset.map(mixing.apply).as_numpy_iterator())


MIXUP, CUTMIX = mixing_lib.Mixing(mixup=1.0), mixing_lib.Mixing(cutmix=1.0)
BOTH = mixing_lib.Mixing(mixup=1.0, cutmix=1.0)


@pytest.mark.parametrize(
    "mixing, size",
    [
        *((MIXUP, 299), (CUTMIX, 299), (BOTH, 299), (BOTH, 160)),
        pytest.param(MIXUP, 160, marks=pytest.mark.slow),
        pytest.param(CUTMIX, 160, marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough
def test_the_share_is_that_of_the_pixels_in_both_views(mixing, size):
    """Images of 1, in pairs with images of 0, so that the mean is a share."""
    values = np.tile([1.0, 0.0], 8)
    batch = mixed(mixing, values, size)
    expected = np.where(values == 1, batch["share"], 1 - batch["share"])
    np.testing.assert_allclose(batch["image"].mean(axis=(1, 2, 3)), expected, atol=1e-5)
    np.testing.assert_allclose(batch["sequence"].mean(axis=(1, 2)), expected, atol=1e-5)
    np.testing.assert_array_equal(batch["other_label"], np.arange(16) ^ 1)
    assert batch["share"].min() >= 0.5 and batch["share"].max() <= 1
    assert batch["share"].dtype == np.float32 and np.unique(batch["share"]).size == 16
    assert set(batch) == {"image", "sequence", "label", "other_label", "share"}


def test_mixup_changes_all_pixels_alike():
    assert np.ptp(mixed(MIXUP, [1.0, 0.0])["image"], axis=(1, 2, 3)).max() == 0


def is_rectangle(weight):
    """Whether a (S, S) weight is a product of one of rows and one of columns."""
    product = weight.mean(axis=1, keepdims=True) * weight.mean(axis=0)
    return np.allclose(weight * weight.mean(), product, atol=1e-5)


def test_cutmix_exchanges_a_rectangle_or_what_is_around_it():
    values = np.tile([1.0, 0.0], 16)
    around = []
    for image, own in zip(mixed(CUTMIX, values)["image"][..., 0], values, strict=True):
        assert np.mean((image != 0) & (image != 1)) < 0.02  # at the edges
        weight = image if own else 1 - image  # of the image itself
        assert is_rectangle(weight) or is_rectangle(1 - weight)
        around.append(not is_rectangle(1 - weight))
    assert 2 <= sum(around) <= 16


def test_both_views_show_the_same_rectangle():
    batch = mixed(CUTMIX, np.tile([1.0, 0.0], 4))
    np.testing.assert_allclose(
        batch["sequence"].reshape(-1, 299, 299), batch["image"].mean(axis=-1), atol=1e-6
    )


def test_with_both_a_pair_is_mixed_by_one_of_them():
    images = mixed(BOTH, np.tile([1.0, 0.0], 32))["image"]
    is_mixup = np.ptp(images, axis=(1, 2, 3)) == 0
    np.testing.assert_array_equal(is_mixup[::2], is_mixup[1::2])
    assert 6 <= is_mixup[::2].sum() <= 26


def test_the_last_image_of_an_odd_batch_stays_as_it_is():
    batch = mixed(BOTH, [1.0, 0.0, 0.25])
    np.testing.assert_allclose(batch["image"][2], 0.25, rtol=1e-6)
    assert batch["other_label"].tolist() == [1, 0, 2]


@pytest.mark.parametrize("concentration", [1e-6, 1e-3, 0.2, 1.0, 50.0])
def test_shares_are_distributed_as_beta(concentration):
    share = tf.function(lambda key: mixing_lib._beta(concentration, key))
    draws = np.array([share(tf.constant([seed, 5], tf.int64)) for seed in range(400)])
    assert np.all((draws >= 0) & (draws <= 1))  # not NaN
    folded = np.maximum(draws, 1 - draws)
    variance = np.mean((folded - 0.5) ** 2)
    expected = 1 / (4 * (2 * concentration + 1))
    assert abs(variance - expected) < 0.2 * expected + 1e-6
