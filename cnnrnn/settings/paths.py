"""Where downloads, prepared data sets and cached features are stored."""

import os
import pathlib


def cache_dir() -> pathlib.Path:
    """The folder of downloads, prepared data sets and cached features."""
    return pathlib.Path(os.environ.get("CNNRNN_CACHE", "~/.cache/cnnrnn")).expanduser()
