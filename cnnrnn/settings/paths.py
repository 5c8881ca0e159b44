"""Paths in settings, and where downloads, prepared data sets and cached features are stored."""

import os
import pathlib


def cache_dir() -> pathlib.Path:
    """The folder of downloads, prepared data sets and cached features."""
    return expanded(os.environ.get("CNNRNN_CACHE", "~/.cache/cnnrnn"))


def expanded(path: str) -> pathlib.Path:
    """A path with the home folder for ~ and ~USER, which stay if there is no such user."""
    return pathlib.Path(os.path.expanduser(path))
