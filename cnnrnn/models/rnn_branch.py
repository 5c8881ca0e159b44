"""The RNN branch: two LSTM layers that read the image from top to bottom."""

import keras

from cnnrnn.models import lstm


def build(sequence: keras.KerasTensor, units: int, seed: int) -> keras.KerasTensor:
    """Builds the branch on an input.

    Args:
        sequence: (B, 23, 3887) float32, thirteen gray pixel rows per timestep.
        units: units of both layers, equal to the number of CNN features.
        seed: seed of the initial weights.

    Returns:
        The output of the last timestep, (B, units).
    """
    hidden = _lstm(units, seed, name="lstm_1", return_sequences=True)(sequence)  # (B, 23, units)
    return _lstm(units, seed + 2, name="rnn_features", return_sequences=False)(hidden)


def _lstm(units: int, seed: int, **kwargs) -> lstm.LSTM:
    return lstm.LSTM(
        units,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 1),
        **kwargs,
    )
