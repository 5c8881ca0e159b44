"""The RNN branch: two LSTM layers that read the image from its top rows to its bottom rows."""

import keras

from cnnrnn.models import lstm


def build(rows: keras.KerasTensor, units: int, seed: int) -> keras.KerasTensor:
    """Builds the branch on an input.

    Args:
        rows: (B, 23, 3887) float32, thirteen gray pixel rows a timestep.
        units: width of both layers; that of the CNN's features.
        seed: seed of the initial weights.

    Returns:
        The last timestep's output, (B, units).
    """
    sequence = _lstm(units, seed, name="lstm_1", return_sequences=True)(rows)  # (B, 23, units)
    return _lstm(units, seed + 2, name="rnn_features", return_sequences=False)(sequence)


def _lstm(units: int, seed: int, **kwargs) -> lstm.LSTM:
    return lstm.LSTM(
        units,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 1),
        **kwargs,
    )
