"""Classifier: the best weights of a run, with the preprocessing and class names."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from cnnrnn import errors, shapes
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, run_folder


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network that classifies encoded or decoded images.

    Attributes:
        network: with the best weights.
        class_names: by label.
        preprocessing: the one of training.
        best: the record of the weights.
    """

    network: network_lib.Network
    class_names: tuple[str, ...]
    preprocessing: views_lib.Preprocessing
    best: best_weights.Best

    @property
    def view_specs(self) -> dict[str, tf.TensorSpec]:
        """The inputs of one image."""
        size = self.preprocessing.image_size
        return {
            "image": tf.TensorSpec((size, size, shapes.CHANNELS)),
            "sequence": tf.TensorSpec((shapes.TIMESTEPS, shapes.STEP_FEATURES)),
        }

    def views(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        """The inputs of both branches for one encoded image, () string."""
        return self.views_of(views_lib.decode(encoded))

    def views_of(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """The inputs of both branches for one decoded image, (height, width, 3) uint8."""
        return self.preprocessing.inputs(image)

    def probabilities(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """(B, classes) float32, for a batch of views."""
        return tf.nn.softmax(self.network.logits(batch, training=False))

    def top(self, probabilities: np.ndarray, count: int) -> list[tuple[str, float]]:
        """The `count` most likely classes of (classes,) probabilities, as (name, probability)."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.class_names[label], float(probabilities[label])) for label in order]


def load(
    root: str | pathlib.Path,
    image_size: int = 0,
    precision: str | None = None,
    lstm_kernel: str = "auto",
) -> Classifier:
    """Loads the best weights of the last trained phase of a run.

    Args:
        root: the run folder.
        image_size: as --eval_image_size.
        precision: as --precision, but not "auto"; None: that of training.
        lstm_kernel: as --lstm_kernel. Not that of training, which may have run on other devices.

    Raises:
        UsageError: the folder is not a trained run, or this machine lacks the LSTM kernel.
        RunError: the weights are damaged.
    """
    folder = run_folder.RunFolder(pathlib.Path(root))
    best = best_weights.latest(folder.best)
    recorded = folder.config()
    try:
        preprocessing = views_lib.Preprocessing(
            recorded["data"]["resize_method"], folder.eval_image_size(best.phase, image_size)
        )
        precision = precision or recorded[best.phase]["precision"]
    except (KeyError, TypeError) as error:
        raise errors.UsageError(
            f"{folder.root / 'config.json'} lacks the settings of a trained run: restore it from a "
            "copy."
        ) from error
    network = network_lib.build(
        len(best.class_names),
        seed=None,
        precision=precision,
        lstm_kernel=lstm.choose(lstm_kernel, precision),
        variant=folder.variant(best.phase),
    )
    best_weights.load(best, network.model, best.class_names)
    return Classifier(network, best.class_names, preprocessing, best)
