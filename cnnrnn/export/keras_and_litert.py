"""The trained network in plain Keras and in LiteRT.

The inputs are images already resized to 299x299; the gray sequence is computed inside.
"""

import pathlib
import tempfile

import keras
import tensorflow as tf
from tensorflow.lite.python import convert_phase

from cnnrnn import errors, shapes
from cnnrnn.export import saved_model
from cnnrnn.models import batch_norm, lstm
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views
from cnnrnn.system import text as text_lib

# This package's layers, and Keras's layers with the same variables and values.
_PLAIN = {
    lstm.LSTM: keras.layers.LSTM,
    batch_norm.BatchNormalization: keras.layers.BatchNormalization,
}


def plain_keras(network: network_lib.Network, image_size: int) -> keras.Model:
    """The network with Keras's own layers only.

    Args:
        network: of precision "float32".
        image_size: of the CNN's input, to which the image is scaled inside.

    Returns:
        image (B, 299, 299, 3) float32 in [-1, 1] -> probabilities (B, classes).
    """

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, lstm.LSTM):
            # An operation of cuDNN cannot be converted. Keras does not save this argument, so that
            # a model loaded from the file does use cuDNN where there is a GPU.
            config["use_cudnn"] = False
        return _PLAIN.get(type(layer), type(layer)).from_config(config)

    copy = keras.models.clone_model(network.model, clone_function=clone)
    copy.set_weights(network.model.get_weights())
    image = keras.Input((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS), name="image")
    sequence = keras.ops.reshape(
        keras.ops.mean(image, axis=-1), (-1, shapes.TIMESTEPS, shapes.STEP_FEATURES)
    )
    cnn_view = _scaled(image, image_size)
    logits = copy({"image": cnn_view, network_lib.SEQUENCE_INPUT: sequence})
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(logits), name="cnnrnn")


def _scaled(image: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """The CNN's view of an image, as `views.Preprocessing` makes it.

    By two products with the weights of the interpolation: LiteRT has no antialiased resizing.
    """
    if size == shapes.IMAGE_SIZE:
        return image
    weights = views.interpolation(size)  # (size, 299)
    for axis, equation, width in (
        ("height", "bhwc,sh->bswc", shapes.IMAGE_SIZE),
        ("width", "bhwc,sw->bhsc", size),
    ):
        shape = (size, width, shapes.CHANNELS)
        layer = keras.layers.EinsumDense(equation, shape, trainable=False, name=f"scaled_{axis}")
        image = layer(image)
        layer.set_weights([weights])
    return image


def litert(model: keras.Model, quantized: bool) -> bytes:
    """Converts the network to LiteRT, with builtin operations only and a batch size of 1.

    Args:
        model: from `plain_keras`.
        quantized: whether to quantize the weights to 8 bits (dynamic range quantization), which
            makes the file a quarter of the size.

    Returns:
        The content of a file: image (1, 299, 299, 3) float32 in [0, 255] -> probabilities
        (1, classes).

    Raises:
        RunError: TensorFlow cannot convert the network.
    """
    size = (1, shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS)

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(image / 127.5 - 1.0, training=False)}

    # Through a SavedModel: converted from a function, the file lacks Keras's weights.
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "saved_model"
        spec = tf.TensorSpec(size, tf.float32, name="image")
        classify = tf.function(classify, input_signature=[spec])
        saved_model.save(saved, model.weights, {"serving_default": classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        if quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            return converter.convert()
        except convert_phase.ConverterError as error:
            raise errors.RunError(
                f"TensorFlow {tf.__version__} cannot convert the network to LiteRT "
                f"({text_lib.first_line(error)}): install the versions of requirements.txt."
            ) from error
