"""A classifier with the small network, and an export of it."""

import pathlib

import numpy as np
import tensorflow as tf

from cnnrnn import metrics, phases
from cnnrnn.export import saved_model
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views
from cnnrnn.runs import best_weights
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed
from tests import small_network

NAMES = ("cat", "<b>dog</b>", "鳥")
TOP, MAX_PIXELS = 2, 1_000_000


def classifier(names: tuple[str, ...], network=None) -> classifier_lib.Classifier:
    """A classifier of `names`, by default with a small, untrained network."""
    best = best_weights.Best(None, "", names, "phase1", 1, metrics.Means(0, 0, 0, 1))
    network = network or small_network.small_build(len(names))
    return classifier_lib.Classifier(network, names, views.Preprocessing(), best)


def sensitive_network() -> network_lib.Network:
    """A network whose predictions depend on the image and on BatchNorm's moving statistics."""
    network = small_network.small_build(3)
    rng = np.random.default_rng(0)
    for layer in phases.batchnorm_layers(network):
        layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
        layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    kernel = network.fusion.get_layer("logits").kernel
    kernel.assign(kernel * 1000)
    return network


def probabilities(network: network_lib.Network, images: np.ndarray, size: int = 299) -> np.ndarray:
    """(B, classes) float32 of RGB views (B, 299, 299, 3), by the network itself.

    Args:
        network: of any classes.
        images: with values in [-1, 1].
        size: of the CNN's input.
    """
    inputs = tf.map_fn(
        views.Preprocessing(image_size=size).inputs_of,
        tf.constant(images),
        fn_output_signature={"image": tf.float32, "sequence": tf.float32},
    )
    return tf.nn.softmax(network.logits(inputs, training=False)).numpy()


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes the SavedModel and the manifest of an export; returns the folder."""
    metadata = {"classes": len(NAMES), "top": TOP, "resize_method": "bilinear"}
    with checksummed.writing(folder, metadata) as temporary:
        saved_model.write(
            classifier(NAMES),
            temporary / "saved_model",
            top=TOP,
            max_pixels=MAX_PIXELS,
            metadata=metadata,
        )
    return folder
