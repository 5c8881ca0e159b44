"""The CNN branch: Xception without its top, then global average pooling."""

import itertools
import re

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


def blocks(cnn: keras.Model) -> list[list[keras.Layer]]:
    """The layers of a CNN by block, from the first block to the last.

    The names of layers say which block they are of: block1_conv1. A layer with another name, i.e.
    of a shortcut, is of the same block as the one before it; the order of Xception's layers is such
    that this is the block that the shortcut bypasses. The input is of the first block.
    """
    found: dict[str, list[keras.Layer]] = {}
    unnamed: list[keras.Layer] = []  # before the first block
    current = unnamed
    for layer in cnn.layers:
        match = re.match(r"block\d+", layer.name)
        if match:
            current = found.setdefault(match[0], [])
        current.append(layer)
    first, *others = found.values() or [[]]
    return [unnamed + first, *others]
