"""The CNN branch: Xception without its top, then global average pooling."""

import keras


def build(image: keras.KerasTensor, synchronized_batchnorm: bool) -> keras.Model:
    """Builds the branch on an input, so that Xception's layers are reachable in the whole model.

    Args:
        image: (B, 299, 299, 3) float32 in [-1, 1].
        synchronized_batchnorm: see `models.build`.

    Returns:
        image -> pooled features (B, 2048); 20,861,480 random parameters, which
        `xception_weights` fills.
    """
    xception = keras.applications.Xception(include_top=False, weights=None, input_tensor=image)
    for layer in xception.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized_batchnorm
    features = keras.layers.GlobalAveragePooling2D(name="cnn_features")(xception.output)
    return keras.Model(image, features, name="cnn")
