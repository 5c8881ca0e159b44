"""The RNN branch: two LSTM layers that read the image from top to bottom."""

import keras

from cnnrnn.models import lstm


def build(
    sequence: keras.KerasTensor,
    units: int,
    seed: int,
    lstm_kernel: str = "ours",
) -> keras.KerasTensor:
    """Builds the LSTM layers on an input.

    Args:
        sequence: (B, 23, 3887) float32, thirteen gray pixel rows per timestep.
        units: units of both layers, equal to the number of CNN features.
        seed: seed of the initial weights.
        lstm_kernel: "ours" or "cudnn"; see `lstm.choose`.

    Returns:
        The output of the last timestep, (B, units).
    """
    first = _lstm(units, seed, lstm_kernel, name="lstm_1", return_sequences=True)
    second = _lstm(units, seed + 2, lstm_kernel, name="rnn_features", return_sequences=False)
    return second(first(sequence))  # (B, 23, units) in between


def standardized(sequence: keras.KerasTensor) -> keras.KerasTensor:
    """Each timestep of each image with mean 0 and standard deviation 1, (B, 23, 3887)."""
    return keras.layers.LayerNormalization(
        center=False, scale=False, epsilon=1e-3, dtype="float32", name="standardized"
    )(sequence)


def normalized(features: keras.KerasTensor) -> keras.KerasTensor:
    """The branch's output (B, units) with layer normalization."""
    return keras.layers.LayerNormalization(dtype="float32", name="rnn_normalized")(features)


def _lstm(units: int, seed: int, lstm_kernel: str, **kwargs) -> lstm.LSTM:
    return lstm.LSTM(
        units,
        lstm_kernel=lstm_kernel,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 1),
        **kwargs,
    )
