"""Paths in settings, and where downloads, prepared data sets and cached features are stored."""

import functools
import os
import pathlib

from cnnrnn import errors


def cache_dir() -> pathlib.Path:
    """The folder of downloads, prepared data sets and cached features."""
    return expanded(os.environ.get("CNNRNN_CACHE") or "~/.cache/cnnrnn")


def expanded(path: str) -> pathlib.Path:
    """A path with the home folder for ~ and ~USER, which stay if there is no such user."""
    return pathlib.Path(os.path.expanduser(path))


def check_no_wildcards(path: pathlib.Path, what: str, fix: str) -> None:
    """Checks that TensorFlow does not take the path of saved weights for a pattern.

    Args:
        path: of the folder.
        what: it is, for the message.
        fix: what to do, likewise.

    Raises:
        UsageError: it has a wildcard.
    """
    if set("*?[]") & set(str(path.absolute())):
        raise errors.UsageError(
            f"{what} {path.absolute()} has one of * ? [ ] in its path, which TensorFlow interprets "
            f"as wildcards: {fix}."
        )


def absolute(path: str) -> str:
    """The absolute path of a file, without `..`.

    To the system `link/..` is the folder above the link's target. TensorFlow, like
    os.path.abspath, would remove it as text, and read another file.
    """
    folder, name = os.path.split(path)
    if os.pardir not in folder.split(os.sep):
        return os.path.abspath(path)
    return os.path.join(_real(os.path.join(os.getcwd(), folder)), name)


@functools.lru_cache(maxsize=1024)  # many images are in one folder
def _real(folder: str) -> str:
    return os.path.realpath(folder)
