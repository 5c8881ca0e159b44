"""The fusion of the branches: a function of their outputs, then one dense layer."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Fusion:
    """A function of the outputs of both branches, without weights.

    Attributes:
        layers: CNN (B, n), RNN (B, n) -> fused features (B, m), as Keras layers.
        values: the same for NumPy arrays; one of the two may be (1, n).
    """

    layers: Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _product(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Multiply(dtype="float32", name="product")([cnn, rnn])


def _sum(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Add(dtype="float32", name="sum")([cnn, rnn])


def _concatenation(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Concatenate(dtype="float32", name="concatenation")([cnn, rnn])


def _gated(cnn: keras.KerasTensor, rnn: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Add(dtype="float32", name="gated")([cnn, _product(cnn, rnn)])


def _concatenated(cnn: np.ndarray, rnn: np.ndarray) -> np.ndarray:
    return np.concatenate(np.broadcast_arrays(cnn, rnn), axis=1)


FUSIONS = {
    "product": Fusion(_product, lambda cnn, rnn: cnn * rnn),
    "sum": Fusion(_sum, lambda cnn, rnn: cnn + rnn),
    "concatenation": Fusion(_concatenation, _concatenated),
    "gated": Fusion(_gated, lambda cnn, rnn: cnn + cnn * rnn),
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
    )(FUSIONS[name].layers(cnn_features, rnn_features))
