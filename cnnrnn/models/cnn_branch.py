"""The CNN branch: Xception without its top, then global average pooling."""

import keras


def build(
    image: keras.KerasTensor, synchronized_batchnorm: bool
) -> tuple[keras.Model, keras.KerasTensor]:
    """Builds the branch on an input, so that Xception's layers are reachable in the whole model.

    Args:
        image: (B, 299, 299, 3) float32 in [-1, 1].
        synchronized_batchnorm: see `models.build`.

    Returns:
        The Xception (20,861,480 parameters, random; `xception_weights` fills it) and its pooled
        features (B, 2048).
    """
    xception = keras.applications.Xception(include_top=False, weights=None, input_tensor=image)
    for layer in xception.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized_batchnorm
    features = keras.layers.GlobalAveragePooling2D(name="cnn_features")(xception.output)
    return xception, features
