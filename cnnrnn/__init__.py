"""A two-branch image classifier: a pretrained Xception times an LSTM that reads the picture."""

import os

# The loop is TensorFlow's own, whatever backend the user's Keras is set to elsewhere.
os.environ["KERAS_BACKEND"] = "tensorflow"
