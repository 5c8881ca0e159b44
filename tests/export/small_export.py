"""A classifier with the small network, and an export of it."""

import pathlib

from cnnrnn import metrics
from cnnrnn.export import saved_model
from cnnrnn.preprocessing import views
from cnnrnn.runs import best_weights
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed
from tests import small_network

NAMES = ("cat", "<b>dog</b>", "鳥")
TOP, MAX_PIXELS = 2, 1_000_000


def classifier(names: tuple[str, ...], network=None) -> classifier_lib.Classifier:
    """A classifier of `names`, by default with a small, untrained network."""
    best = best_weights.Best(None, "", names, "phase1", 1, metrics.Means(0, 0, 0, 1))
    network = network or small_network.small_build(len(names))
    return classifier_lib.Classifier(network, names, views.Preprocessing(), best)


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes the SavedModel and the manifest of an export; returns the folder."""
    metadata = {"classes": len(NAMES), "top": TOP, "resize_method": "bilinear"}
    with checksummed.writing(folder, metadata) as temporary:
        saved_model.write(
            classifier(NAMES),
            temporary / "saved_model",
            top=TOP,
            max_pixels=MAX_PIXELS,
            metadata=metadata,
        )
    return folder
