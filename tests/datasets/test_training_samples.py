"""Training samples: a pure function of the position, with everything on."""

import os

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline, training_samples
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.settings import paths
from tests import conftest

EVERYTHING = {  # but for the augmentation
    "mixup": 0.2,
    "cutmix": 1.0,
    "dropout": 0.25,
    "sampling": "balanced",
}


@pytest.fixture
def split(shared_run):
    """Its images are known; pipelines are traced and optimized as in the program."""
    conftest.copy_cache(shared_run, paths.cache_dir())
    return dataset_lib.load(shared_run).train


def samples_of(split, train_cnn=True, image_size=299, **settings):
    samples = training_samples.TrainingSamples.of(
        config.Config.of(**settings), split, train_cnn=train_cnn, dropout_width=6
    )
    return samples.of_size(image_size)


def drawn(split, samples, start, count, batch_size, features=None):
    """`count` samples from a position on."""
    batches = input_pipeline.training(
        split, samples, batch_size=batch_size, start=start, features=features
    ).take(count // batch_size)
    batches = list(batches.as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_equal(one, two):
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize(
    "policy",
    ["standard", pytest.param("strong", marks=pytest.mark.slow)],  # which takes long to trace
)
@pytest.mark.thorough
def test_a_sample_is_the_same_whatever_start_batch_size_and_parallelism(split, monkeypatch, policy):
    settings = EVERYTHING | {"augmentation": policy}
    samples = samples_of(split, **settings)
    whole = drawn(split, samples, 0, 12, batch_size=6)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    part = drawn(split, samples, 4, 8, batch_size=4)
    assert_equal({name: value[4:] for name, value in whole.items()}, part)
    assert set(whole) == {
        "image", "sequence", "label", "index", "weight", "dropout", "other_label", "share",
    }  # fmt: skip
    assert len(np.unique(whole["share"])) > 10 and len(np.unique(whole["dropout"], axis=0)) > 6
    other_seed = drawn(split, samples_of(split, seed=1, **settings), 0, 12, batch_size=12)
    for name in ("image", "dropout", "share", "index"):
        assert not np.array_equal(other_seed[name], whole[name])


def test_without_options_nothing_is_drawn_for_a_sample(split):
    batch = drawn(split, samples_of(split), 0, 4, batch_size=4)
    assert set(batch) == {"image", "sequence", "label", "index", "weight"}
    images = input_pipeline.examples(split.take(batch["index"]), views_lib.Preprocessing())
    np.testing.assert_array_equal(batch["image"], images["image"])


@pytest.mark.parametrize(
    "policy", ["flip", "standard", pytest.param("strong", marks=pytest.mark.slow)]
)
@pytest.mark.thorough
def test_both_branches_see_the_same_augmented_image(split, policy):
    batch = drawn(split, samples_of(split, augmentation=policy), 0, 6, batch_size=6)
    for image, sequence in zip(batch["image"], batch["sequence"], strict=True):
        np.testing.assert_allclose(views_lib.sequence_of(image), sequence, atol=1e-6)
    small = samples_of(split, augmentation=policy, image_size=96)
    smaller = drawn(split, small, 0, 6, batch_size=6)
    assert smaller["image"].shape == (6, 96, 96, 3)
    np.testing.assert_array_equal(smaller["sequence"], batch["sequence"])


def test_the_masks_of_the_dropout_keep_the_mean(split):
    samples = samples_of(split, dropout=0.25)
    draw = tf.function(samples._draws)
    masks = np.array([draw(tf.constant(n, tf.int64))["dropout"] for n in range(400)])
    np.testing.assert_allclose(np.unique(masks), [0, 1 / 0.75])
    assert masks.shape == (400, 6) and np.abs(masks.mean(axis=0) - 1).max() < 5 * 0.58 / 20


def test_views_are_counted_only_if_they_repeat(split):
    assert samples_of(split).view_count == 1
    assert samples_of(split, mixup=0.2).view_count == 0
    counted = {"augmentation": "standard", "cached_views": 3}
    assert samples_of(split, augmentation="flip").view_count == 0
    assert samples_of(split, train_cnn=False, **counted).view_count == 3
    assert samples_of(split, train_cnn=True, **counted).view_count == 0


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
@pytest.mark.thorough
def test_the_counted_views_of_an_image_are_used_in_turn(split, sampling):
    samples = samples_of(
        split, train_cnn=False, augmentation="standard", cached_views=2, sampling=sampling
    )
    batch = drawn(split, samples, 0, 18 * 3, batch_size=18)
    for index in range(18):
        first, second, third = batch["sequence"][batch["index"] == index]
        np.testing.assert_array_equal(first, third)
        assert not np.array_equal(first, second)
    numbers = np.array([5, 4, 35, 4])
    views = next(input_pipeline.views(split, samples, numbers, 3).as_numpy_iterator())
    assert views["index"].tolist() == [2, 2, 17]
    for number, sequence in zip(numbers, views["sequence"], strict=False):
        same = batch["sequence"][batch["index"] == number // 2]
        np.testing.assert_array_equal(same[number % 2], sequence)


def test_features_of_the_view_are_read(split):
    class Numbers:
        def of(self, numbers):
            return tf.cast(numbers, tf.float32)[:, None]

    samples = samples_of(split, train_cnn=False, augmentation="flip", cached_views=2)
    batch = drawn(split, samples, 0, 54, batch_size=18, features=Numbers())
    expected = batch["index"] * 2 + np.arange(54) // 18 % 2
    np.testing.assert_array_equal(batch["features"][:, 0], expected)
    assert "view" not in batch and "image" not in batch
