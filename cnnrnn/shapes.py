"""The sizes that the network is made of, in one place.

The gray view of a 299x299 image is read as 23 timesteps of 3887 values, and 3887 = 13 x 299: one
timestep is thirteen whole pixel rows.
"""

IMAGE_SIZE = 299
CHANNELS = 3

TIMESTEPS = 23
ROWS_PER_TIMESTEP = IMAGE_SIZE // TIMESTEPS
STEP_FEATURES = ROWS_PER_TIMESTEP * IMAGE_SIZE

LSTM_UNITS = 2048  # equal to Xception's pooled features: the branches meet in a product
TOP_K = 5
