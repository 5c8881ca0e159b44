"""A trained run as something that classifies images."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from cnnrnn import errors, shapes
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, run_folder

VIEWS = {  # of one image
    "image": tf.TensorSpec((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS)),
    "sequence": tf.TensorSpec((shapes.TIMESTEPS, shapes.STEP_FEATURES)),
}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The best weights of a run, with all that is needed to use them.

    Attributes:
        network: filled.
        class_names: by label.
        preprocessing: as in training.
        best: which weights they are.
    """

    network: network_lib.Network
    class_names: tuple[str, ...]
    preprocessing: views_lib.Preprocessing
    best: best_weights.Best

    def views(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the two branches see of one encoded image, () string."""
        return self.views_of(views_lib.decode(encoded))

    def views_of(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """What they see of a decoded one, (height, width, 3) uint8."""
        return self.preprocessing.inputs(image)

    def probabilities(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """(B, classes) float32 of a batch of views."""
        return tf.nn.softmax(self.network.logits(batch, training=False))

    def top(self, probabilities: np.ndarray, count: int) -> list[tuple[str, float]]:
        """The most likely of (classes,) probabilities, most likely first, by name."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.class_names[label], float(probabilities[label])) for label in order]


def load(root: pathlib.Path, precision: str | None = None) -> Classifier:
    """Loads the best weights of the last phase of a run.

    Args:
        root: the run's folder.
        precision: of the products; None: as it was trained.

    Raises:
        UsageError: the folder is no run that has been trained.
        RunError: its files are damaged.
    """
    folder = run_folder.RunFolder(root)
    best = best_weights.latest(folder.best)
    recorded = folder.config()
    try:
        preprocessing = views_lib.Preprocessing(recorded["data"]["resize_method"])
        precision = precision or recorded[best.phase]["precision"]
    except (KeyError, TypeError) as error:
        raise errors.UsageError(f"{root}/config.json is not that of a trained run.") from error
    network = network_lib.build(len(best.class_names), precision=precision)
    best_weights.load(best, network.model, best.class_names)
    return Classifier(network, best.class_names, preprocessing, best)
