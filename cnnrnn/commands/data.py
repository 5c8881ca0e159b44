"""`data`: prepare and describe a data set; `data restructure SRC DST`."""

import pathlib
from collections.abc import Sequence

import numpy as np

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import tiny_imagenet_folders


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Carries out the words that follow `data`.

    Raises:
        UsageError: they are not understood.
    """
    if not arguments:
        describe(dataset_lib.load(config))
    elif arguments[0] == "restructure" and len(arguments) == 3:
        source, destination = (pathlib.Path(path).expanduser() for path in arguments[1:])
        tiny_imagenet_folders.restructure(source, destination)
    else:
        raise errors.UsageError(
            f"expected 'data' alone or 'data restructure SRC DST'. Received: data "
            f"{' '.join(arguments)}"
        )


def describe(data: dataset_lib.Dataset) -> None:
    """Prints the classes and how many images each has."""
    counts = [
        np.bincount(split.labels, minlength=len(data.class_names))
        for split in (data.train, data.validation)
    ]
    print(f"fingerprint {data.fingerprint}\n{'train':>8}  {'validation':>10}  class")
    for train, validation, name in zip(*counts, data.class_names, strict=True):
        print(f"{train:>8,}  {validation:>10,}  {name}")
