"""This program's command line in a child process."""

import os
import pathlib
import sys

# -P: no module is taken from the user's current folder.
PROGRAM = (sys.executable, "-P", "-m", "cnnrnn.main")


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child process that imports the same `cnnrnn` as this one.

    The package's parent folder comes first on PYTHONPATH: with -P, Python would otherwise find
    the package only if it is installed.

    Args:
        **changes: variables to set besides.
    """
    root = str(pathlib.Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([root, inherited] if inherited else [root])
    return os.environ | {"PYTHONPATH": path} | changes
