"""The fusion of the branches: a function of their outputs, then one dense layer."""

from collections.abc import Callable

import keras

Fusion = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]


def _product(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Multiply(dtype="float32", name="product")([cnn, rnn])


def _sum(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Add(dtype="float32", name="sum")([cnn, rnn])


def _concatenation(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Concatenate(dtype="float32", name="concatenation")([cnn, rnn])


def _gated(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Add(dtype="float32", name="gated")([cnn, _product(cnn, rnn)])


def _cnn(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Identity(dtype="float32", name="cnn_only")(cnn)


def _rnn(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Identity(dtype="float32", name="rnn_only")(rnn)


def _gain(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.EinsumDense(
        "ab,b->ab", cnn.shape[-1], kernel_initializer="ones", dtype="float32", name="gain"
    )(cnn)


# CNN (B, n), RNN (B, n) -> fused features (B, m). The last three are controls: each leaves out a
# branch, which is then no part of the model.
FUSIONS: dict[str, Fusion] = {
    "product": _product,
    "sum": _sum,
    "concatenation": _concatenation,
    "gated": _gated,
    "cnn": _cnn,
    "rnn": _rnn,
    "gain": _gain,
}


def build(
    cnn_features: keras.KerasTensor,
    rnn_features: keras.KerasTensor,
    classes: int,
    seed: int,
    name: str = "product",
) -> keras.KerasTensor:
    """Fuses the branches and classifies the fused features.

    Args:
        cnn_features: (B, 2048).
        rnn_features: (B, 2048).
        classes: number of classes.
        seed: seed of the initial weights.
        name: of `FUSIONS`.

    Returns:
        Logits, (B, classes) float32; callers that need probabilities apply the softmax.
    """
    return keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        dtype="float32",
        name="logits",
    )(FUSIONS[name](cnn_features, rnn_features))
