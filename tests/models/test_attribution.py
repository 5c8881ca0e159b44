"""Attribution maps of a network whose evidence for a class is at a known place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.models import attribution, fusion, lstm
from cnnrnn.models import network as network_lib
from tests import cudnn, small_network

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

CLASSES = 2


@pytest.fixture(scope="module")
def network():
    """A CNN that detects white (class 1), and an RNN that depends on three timesteps only."""
    image = keras.Input((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, 3), name="image")
    sequence = keras.Input(
        (shapes.TIMESTEPS, shapes.STEP_FEATURES), name=network_lib.SEQUENCE_INPUT
    )
    white = keras.layers.Conv2D(2, 23, strides=23, activation="relu", name="white")(image)
    cnn = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="cnn_features")(white))
    mask = np.zeros((shapes.TIMESTEPS, 1), np.float32)
    mask[10:13] = 1
    masked = keras.layers.Rescaling(mask, name="three_timesteps")(sequence)
    few = keras.layers.AveragePooling1D(1, name="few")(masked)
    rnn = lstm.LSTM(2, name="rnn_features")(few)
    logits = fusion.build(cnn.output, rnn, CLASSES, 0)
    model = keras.Model({"image": image, network_lib.SEQUENCE_INPUT: sequence}, logits)
    kernel = np.zeros((23, 23, 3, 2), np.float32)
    kernel[..., 0], kernel[..., 1] = -1, 1
    model.get_layer("white").set_weights([kernel, np.zeros(2)])
    parts = network_lib.parts_of(model, cnn, keras.Model(sequence, rnn), "float32")
    # The logit of class 1 is white times |RNN|: the RNN's sign is divided out.
    signs = np.sign(parts.rnn(tf.ones((1, shapes.TIMESTEPS, shapes.STEP_FEATURES))).numpy()[0])
    model.get_layer("logits").set_weights([np.diag(signs), np.zeros(CLASSES)])
    return parts


@pytest.fixture(scope="module")
def explainer(network):
    return attribution.Explainer(network)


def test_grad_cam_covers_the_evidence(explainer):
    """Images with the evidence in one corner each."""
    corners = [(y, x) for y in (0, 184) for x in (0, 184)]
    images = np.full((4, 299, 299, 3), -1.0, np.float32)
    for image, (y, x) in zip(images, corners, strict=True):
        image[y : y + 115, x : x + 115] = 1.0
    sequence = np.ones((4, shapes.TIMESTEPS, shapes.STEP_FEATURES), np.float32)
    batch = {"image": tf.constant(images), "sequence": tf.constant(sequence)}
    explanations = explainer.explain(batch, np.ones((4, 1), np.int64))
    for (explanation,), (y, x) in zip(explanations, corners, strict=True):
        assert explanation.cam.shape == (13, 13) and explanation.cam.max() == 1
        inside = explanation.cam[y // 23 : y // 23 + 5, x // 23 : x // 23 + 5]
        assert inside.min() > 0.99 and explanation.cam.sum() == pytest.approx(inside.sum())


@pytest.mark.thorough
def test_saliency_covers_the_timesteps_that_the_rnn_depends_on(explainer):
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.uniform(0, 1, (2, 299, 299, 3)), tf.float32),
        "sequence": tf.constant(rng.uniform(0, 1, (2, 23, 3887)), tf.float32),
    }
    for (explanation,) in explainer.explain(batch, np.array([[1], [1]])):
        assert explanation.timesteps.max() == 1
        assert np.flatnonzero(explanation.timesteps).tolist() == [10, 11, 12]


def test_grad_cam_is_zero_without_evidence(explainer):
    image = tf.fill((1, 299, 299, 3), -1.0)
    batch = {"image": image, "sequence": tf.ones((1, shapes.TIMESTEPS, shapes.STEP_FEATURES))}
    ((explanation,),) = explainer.explain(batch, np.array([[1]]))
    assert not explanation.cam.any() and np.isfinite(explanation.cam).all()


@pytest.mark.thorough
def test_several_classes_are_explained_like_single_ones(explainer):
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.uniform(-1, 1, (2, 299, 299, 3)), tf.float32),
        "sequence": tf.constant(rng.uniform(0, 1, (2, 23, 3887)), tf.float32),
    }
    labels = np.array([[0, 1], [1, 0]])
    for rank in range(2):
        alone = explainer.explain(batch, labels[:, rank : rank + 1])
        for (one,), several in zip(alone, explainer.explain(batch, labels), strict=True):
            np.testing.assert_allclose(several[rank].cam, one.cam, atol=1e-6)
            np.testing.assert_allclose(several[rank].timesteps, one.timesteps, atol=1e-6)


@pytest.mark.parametrize(
    "fusion_name, maps", [("cnn", {"cam"}), ("gain", {"cam"}), ("rnn", {"timesteps"})]
)
@pytest.mark.thorough
def test_a_branch_that_the_network_lacks_has_no_map(fusion_name, maps):
    variant = network_lib.Variant(fusion_name)
    explainer = attribution.Explainer(small_network.small_build(3, variant=variant))
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.uniform(-1, 1, (1, 299, 299, 3)), tf.float32),
        "sequence": tf.constant(rng.uniform(-1, 1, (1, 23, 3887)), tf.float32),
    }
    ((first, _),) = explainer.explain(batch, np.array([[0, 1]]))
    found = {name for name, values in vars(first).items() if values is not None}
    assert found == maps and all(vars(first)[name].any() for name in maps)


def test_with_cudnn_only_one_class_is_explained(monkeypatch):
    """Its gradient can be computed once. The report of a run explains one class of each image."""
    cudnn.pretend_gpu(monkeypatch)
    explainer = attribution.Explainer(small_network.small_build(3, lstm_kernel="cudnn"))
    batch = {"image": tf.zeros((2, 299, 299, 3)), "sequence": tf.zeros((2, 23, 3887))}
    labels = tf.constant([0, 1])
    graph = tf.function(explainer.maps).get_concrete_function(batch, [labels]).graph
    operations = cudnn.cudnn_operations(graph.as_graph_def())
    assert operations.count("CudnnRNNBackpropV3") == 2  # of two layers
    with pytest.raises(ValueError, match="lstm_kernel='ours'. Received: 'cudnn'"):
        explainer.maps(batch, [labels, labels])
