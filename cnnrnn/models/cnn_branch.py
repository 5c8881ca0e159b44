"""The CNN branch: Xception without its top, then global average pooling."""

import keras

from cnnrnn.models import batch_norm


def build(image: keras.KerasTensor, synchronized_batchnorm: bool) -> keras.Model:
    """Builds the branch on an input, so that Xception's layers are reachable in the whole model.

    Args:
        image: (B, 299, 299, 3) float32 in [-1, 1].
        synchronized_batchnorm: see `models.build`.

    Returns:
        image -> pooled features (B, 2048); 20,861,480 random parameters, which
        `xception_weights` fills.
    """
    xception = keras.models.clone_model(
        keras.applications.Xception(include_top=False, weights=None, input_tensor=image),
        input_tensors=[image],
        clone_function=lambda layer: _with_fused_batch_norm(layer, synchronized_batchnorm),
    )
    pooling = keras.layers.GlobalAveragePooling2D(dtype="float32", name="cnn_features")
    return keras.Model(image, pooling(xception.output), name="cnn")


def _with_fused_batch_norm(layer: keras.Layer, synchronized: bool) -> keras.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        return batch_norm.BatchNormalization.from_config(config | {"synchronized": synchronized})
    return layer.__class__.from_config(config)
