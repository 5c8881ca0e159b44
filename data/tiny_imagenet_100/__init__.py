"""The tiny-imagenet-100 data set."""

import importlib.util
import pathlib
import sys

# `tfds build` imports this package with only data/ on the path; the builder imports cnnrnn.errors.
if importlib.util.find_spec("cnnrnn") is None:
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
