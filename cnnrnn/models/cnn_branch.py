"""The CNN branch: Xception without its top, then global average pooling."""

import itertools

import keras

from cnnrnn.models import batch_norm


def build(image: keras.KerasTensor, synchronized_batchnorm: bool) -> keras.Model:
    """Builds the branch on an input, so that Xception's layers are layers of the model itself.

    Args:
        image: (B, S, S, 3) float32 in [-1, 1].
        synchronized_batchnorm: see `network.build`.

    Returns:
        image -> pooled features (B, 2048), with 20,861,480 random parameters;
        `xception_weights` loads pretrained ones.
    """
    number = itertools.count(1)

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if not layer.name.startswith("block"):
            # Keras numbers the layers of the shortcuts by the count of such layers in the process.
            # Fixed names let a checkpoint verify that it is of this network.
            config["name"] = f"shortcut_{next(number)}_{type(layer).__name__}"
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = synchronized_batchnorm
            return batch_norm.BatchNormalization.from_config(config)
        return layer.__class__.from_config(config)

    xception = keras.models.clone_model(
        keras.applications.Xception(include_top=False, weights=None, input_tensor=image),
        input_tensors=[image],
        clone_function=clone,
    )
    pooling = keras.layers.GlobalAveragePooling2D(dtype="float32", name="cnn_features")
    return keras.Model(image, pooling(xception.output), name="cnn")
