"""A two-branch image classifier: Xception features multiplied by those of an LSTM."""

import importlib
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

# What other programs import; loaded at first use, because TensorFlow takes seconds. Everything else
# is internal and may change.
_PUBLIC = {
    "LSTM": ("cnnrnn.models.lstm", "LSTM"),
    "Preprocessing": ("cnnrnn.preprocessing.views", "Preprocessing"),
    "build_network": ("cnnrnn.models.network", "build"),
    "decode_image": ("cnnrnn.preprocessing.views", "decode"),
    "load_classifier": ("cnnrnn.runs.classifier", "load"),
    "load_xception_weights": ("cnnrnn.models.xception_weights", "load_into"),
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cnnrnn' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
