"""Sizes of the network's inputs and branches.

The gray 299 x 299 image is the RNN's sequence: 299 x 299 = 23 x 3887 and 3887 = 13 x 299, so that
one timestep is thirteen pixel rows.
"""

IMAGE_SIZE = 299  # pixels, height and width
CHANNELS = 3

TIMESTEPS = 23
ROWS_PER_TIMESTEP = IMAGE_SIZE // TIMESTEPS
STEP_FEATURES = ROWS_PER_TIMESTEP * IMAGE_SIZE

LSTM_UNITS = 2048  # as many as Xception's pooled features, for the elementwise product
TOP_K = 5
