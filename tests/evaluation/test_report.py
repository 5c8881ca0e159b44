import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from cnnrnn.evaluation import charts, report


def test_the_mean_by_label_is_scikit_learns_recall():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 10, (2, 500))
    ours = report.mean_by_label((label == predicted).astype(float), label, 10)
    theirs = sklearn.metrics.recall_score(label, predicted, average=None)
    np.testing.assert_allclose(ours, theirs)


def test_a_label_without_examples_has_no_mean():
    means = report.mean_by_label(np.array([1.0]), np.array([2]), 4)
    assert np.isnan(means[[0, 1, 3]]).all() and means[2] == 1


@pytest.mark.parametrize("classes", [2, 100])
def test_label_charts_have_room_for_every_label(classes):
    names = [f"日本 {i}, also known as $omething else and_more" for i in range(classes)]
    accuracy = np.linspace(0, 1, classes)
    accuracy[0] = np.nan
    image = tf.io.decode_png(charts.label_chart(names, accuracy, "Top-1 by label"))
    assert image.shape[0] > 20 * classes  # pixels of height


def test_charts_of_thousands_of_classes_have_a_size_that_programs_read():
    names = [f"species {i}" for i in range(5089)]
    accuracy = np.linspace(0, 1, len(names))
    matrix = np.eye(len(names), dtype=np.int64)
    for png in (
        charts.label_chart(names, accuracy, "Top-1"),
        charts.confusion_chart(names, matrix),
    ):
        assert np.prod(tf.io.decode_png(png).shape[:2]) < 2**25


def test_the_gray_image_shows_the_bands_of_the_sequence():
    rows = np.linspace(-1, 1, 23)[None, :, None].repeat(3887, axis=2)
    image = charts.gray_images(rows.astype(np.float32))
    assert image.shape == (1, 23 * 15, 299, 1)
    assert image[0, 0].max() == 0 and image[0, 13].min() == 1  # first band, then the gap
    assert np.all(np.diff(image[0, ::15, 0, 0]) > 0)


def test_predictions_are_drawn_whatever_their_number():
    for count in (1, 5):
        png = charts.predictions_figure(
            np.zeros((count, 299, 299, 3)), ["a"] * count, ["b"] * count, np.full(count, 0.5)
        )
        assert tf.io.decode_png(png).shape[0] > 100


def test_an_explained_thumbnail_is_the_image_and_the_two_maps():
    cam, timesteps = np.zeros((10, 10)), np.zeros(23)
    cam[:, 5:], timesteps[:11] = 1, 1
    jpeg = charts.explained_thumbnail(np.full((299, 299, 3), 0.5), cam, timesteps, side=100)
    brightness = tf.io.decode_jpeg(jpeg).numpy().mean(axis=-1)
    assert brightness.shape == (100, 300)
    assert np.ptp(brightness[:, :90]) < 5
    assert brightness[:, 170:190].mean() > brightness[:, 110:130].mean() + 50  # right against left
    assert brightness[:40, 210:290].mean() > brightness[60:, 210:290].mean() + 50  # above, below
