"""A two-branch image classifier: a pretrained Xception times an LSTM that reads the image."""

import os
import platform

# The loop is TensorFlow's own, whatever backend the user's Keras is set to elsewhere.
os.environ["KERAS_BACKEND"] = "tensorflow"

# TensorFlow leaves its oneDNN kernels off on x86 processors without AVX-512 VNNI, where they pay
# as much: measured on AVX2, Xception forward and backward runs 1.5 times as fast with them.
# Read once, when TensorFlow is imported; whoever sets it himself is obeyed.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
