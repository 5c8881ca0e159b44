"""The maps, on networks of which it is known where the evidence lies."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.models import attribution, fusion, lstm
from cnnrnn.models import network as network_lib

CLASSES = 2


@pytest.fixture(scope="module")
def network():
    """A CNN that finds white (class 1), and an RNN that reads three timesteps of the rows."""
    image = keras.Input((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, 3), name="image")
    rows = keras.Input((shapes.TIMESTEPS, shapes.STEP_FEATURES), name="sequence")
    white = keras.layers.Conv2D(2, 23, strides=23, activation="relu", name="white")(image)
    cnn = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="cnn_features")(white))
    seen = np.zeros((shapes.TIMESTEPS, 1), np.float32)
    seen[10:13] = 1
    masked = keras.layers.Rescaling(seen, name="three_bands")(rows)
    few = keras.layers.AveragePooling1D(1, name="few")(masked)
    rnn = lstm.LSTM(2, name="rnn_features")(few)
    logits = fusion.build(cnn.output, rnn, CLASSES, 0)
    model = keras.Model({"image": image, "sequence": rows}, logits)
    kernel = np.zeros((23, 23, 3, 2), np.float32)
    kernel[..., 0], kernel[..., 1] = -1, 1
    model.get_layer("white").set_weights([kernel, np.zeros(2)])
    parts = network_lib.parts_of(model, cnn, "float32")
    # Class 1 is white times what the RNN says, whatever its sign is.
    said = np.sign(parts.rnn(tf.ones((1, shapes.TIMESTEPS, shapes.STEP_FEATURES))).numpy()[0])
    model.get_layer("logits").set_weights([np.diag(said), np.zeros(CLASSES)])
    return parts


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_cnns_map_lies_where_the_evidence_is(network, corner):
    image = np.full((1, 299, 299, 3), -1.0, np.float32)
    y, x = corner[0] * 184, corner[1] * 184
    image[:, y : y + 115, x : x + 115] = 1.0
    rows = np.ones((1, shapes.TIMESTEPS, shapes.STEP_FEATURES), np.float32)
    batch = {"image": tf.constant(image), "sequence": tf.constant(rows)}
    ((found,),) = attribution.Explainer(network).explain(batch, np.array([[1]]))
    assert found.cam.shape == (13, 13) and found.cam.max() == 1
    inside = found.cam[y // 23 : y // 23 + 5, x // 23 : x // 23 + 5]
    assert inside.min() > 0.99 and found.cam.sum() == pytest.approx(inside.sum())


def test_the_rnns_map_lies_in_the_bands_that_it_reads(network):
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.uniform(0, 1, (2, 299, 299, 3)), tf.float32),
        "sequence": tf.constant(rng.uniform(0, 1, (2, 23, 3887)), tf.float32),
    }
    for (found,) in attribution.Explainer(network).explain(batch, np.array([[1], [1]])):
        read = np.arange(shapes.TIMESTEPS)
        assert found.timesteps.max() == 1
        assert (
            not found.timesteps[(read < 10) | (read > 12)].any()
            and (found.timesteps[10:13] > 0).all()
        )


def test_where_nothing_speaks_for_a_class_the_map_is_empty(network):
    image = tf.fill((1, 299, 299, 3), -1.0)
    batch = {"image": image, "sequence": tf.ones((1, shapes.TIMESTEPS, shapes.STEP_FEATURES))}
    ((found,),) = attribution.Explainer(network).explain(batch, np.array([[1]]))
    assert not found.cam.any() and np.isfinite(found.cam).all()


def test_several_classes_at_once_are_explained_as_one_by_one(network):
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.uniform(-1, 1, (2, 299, 299, 3)), tf.float32),
        "sequence": tf.constant(rng.uniform(0, 1, (2, 23, 3887)), tf.float32),
    }
    explainer = attribution.Explainer(network)
    labels = np.array([[0, 1], [1, 0]])
    for rank in range(2):
        alone = explainer.explain(batch, labels[:, rank : rank + 1])
        for (one,), several in zip(alone, explainer.explain(batch, labels), strict=True):
            np.testing.assert_allclose(several[rank].cam, one.cam, atol=1e-6)
            np.testing.assert_allclose(several[rank].timesteps, one.timesteps, atol=1e-6)
