"""The trained network without this package: a Keras file, and LiteRT files.

All take images that are resized to 299x299 already; the gray view is made inside.
"""

import pathlib
import tempfile

import keras
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.export import saved_model
from cnnrnn.models import batch_norm, lstm
from cnnrnn.models import network as network_lib

# This package's layers, and those of Keras that have the same variables and values.
_PLAIN = {
    lstm.LSTM: keras.layers.LSTM,
    batch_norm.BatchNormalization: keras.layers.BatchNormalization,
}


def plain_keras(network: network_lib.Network) -> keras.Model:
    """The network of Keras's own layers alone.

    Args:
        network: in float32.

    Returns:
        image (B, 299, 299, 3) float32 in [-1, 1] -> probabilities (B, classes).
    """

    def clone(layer: keras.Layer) -> keras.Layer:
        kind = _PLAIN.get(type(layer), type(layer))
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(network.model, clone_function=clone)
    copy.set_weights(network.model.get_weights())
    image = keras.Input((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS), name="image")
    rows = keras.ops.reshape(
        keras.ops.mean(image, axis=-1), (-1, shapes.TIMESTEPS, shapes.STEP_FEATURES)
    )
    logits = copy({"image": image, "rows": rows})
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(logits), name="cnnrnn")


def litert(model: keras.Model, quantized: bool) -> bytes:
    """A LiteRT file for one image at a time, of LiteRT's own operations alone.

    Args:
        model: from `plain_keras`.
        quantized: weights in 8 bits, which makes it a quarter of the size ('dynamic range').

    Returns:
        The file: image (1, 299, 299, 3) float32 from 0 to 255 -> probabilities (1, classes).
    """
    size = (1, shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS)

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(image / 127.5 - 1.0, training=False)}

    # By way of a SavedModel, because from a function the converter leaves Keras's weights out.
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "saved_model"
        spec = tf.TensorSpec(size, tf.float32, name="image")
        classify = tf.function(classify, input_signature=[spec])
        saved_model.save(saved, model, {"serving_default": classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        if quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()
