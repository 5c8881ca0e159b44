"""`data`: prepares and describes a data set; `data restructure` copies one into class folders."""

from collections.abc import Sequence

import numpy as np

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import tiny_imagenet_folders
from cnnrnn.settings import paths
from cnnrnn.system import text as text_lib


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Prints the number of images of each class, or copies tiny-imagenet into class folders.

    Args:
        arguments: nothing, or 'restructure', the source and the destination.
        config: its `data` settings.

    Raises:
        UsageError: the arguments are not valid, or the data set is not.
        RunError: downloading, reading or writing failed.
    """
    if not arguments:
        _print_classes(dataset_lib.load(config))
    elif arguments[0] == "restructure" and len(arguments) == 3:
        source, destination = (paths.expanded(path) for path in arguments[1:])
        print(tiny_imagenet_folders.restructure(source, destination))
    else:
        raise errors.UsageError(
            f"expected 'data' alone or 'data restructure SRC DST'. Received: data "
            f"{' '.join(arguments)}"
        )


def _print_classes(data: dataset_lib.Dataset) -> None:
    """Prints a table of the number of images of each class."""
    counts = [
        np.bincount(split.labels, minlength=len(data.class_names))
        for split in (data.train, data.validation)
    ]
    print(f"fingerprint {data.fingerprint}\n{'train':>8}  {'validation':>10}  class")
    for train, validation, name in zip(*counts, data.class_names, strict=True):
        print(f"{train:>8,}  {validation:>10,}  {text_lib.printable(name)}")
