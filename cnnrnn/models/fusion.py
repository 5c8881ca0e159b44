"""The fusion of the branches: their product, then one dense layer."""

import keras


def build(
    cnn_features: keras.KerasTensor, rnn_features: keras.KerasTensor, classes: int, seed: int
) -> keras.KerasTensor:
    """Multiplies the branches elementwise and classifies the product.

    Args:
        cnn_features: (B, 2048).
        rnn_features: (B, 2048).
        classes: number of classes.
        seed: seed of the initial weights.

    Returns:
        Logits, (B, classes) float32; callers that need probabilities apply the softmax.
    """
    product = keras.layers.Multiply(dtype="float32", name="product")([cnn_features, rnn_features])
    return keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        dtype="float32",
        name="logits",
    )(product)
