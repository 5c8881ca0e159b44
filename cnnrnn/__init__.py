"""A two-branch image classifier: Xception features multiplied by those of an LSTM."""

import os
import platform

# The program uses TensorFlow directly, so the user's setting of the Keras backend does not apply.
os.environ["KERAS_BACKEND"] = "tensorflow"

# By default TensorFlow allocates all memory of each GPU at start-up, so a second process that uses
# the GPU fails.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# TensorFlow enables its oneDNN kernels only on x86 processors with AVX-512 VNNI, but they help on
# others, too: on AVX2, a training step of Xception is 1.5 times as fast with them. The variable is
# read when TensorFlow is imported; a value that the user has set is kept.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
