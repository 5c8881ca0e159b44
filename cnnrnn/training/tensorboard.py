"""TensorBoard summaries of a phase."""

import json

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import metrics, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.evaluation import charts
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import event_files, run_folder
from cnnrnn.system import devices
from cnnrnn.system import text as text_lib

_INPUTS = 4  # images
_PREDICTIONS = 8  # images


class Summaries:
    """The event files of one phase: a writer for training and one for validation.

    Both use the same tags, so that TensorBoard draws their curves into one chart. The x axis is
    the number of steps done in the phase.

    Args:
        folder: of the run.
        phase: of the event files.
        steps_done: `batch_loss` is kept up to this step; later points will be written again.
        steps_validated: all other points are kept up to this step.
    """

    def __init__(
        self,
        folder: run_folder.RunFolder,
        phase: phases.Phase,
        *,
        steps_done: int,
        steps_validated: int,
    ):
        directories = [folder.events(phase, split) for split in ("train", "validation")]
        for directory in directories:
            event_files.keep_only(
                directory,
                lambda tag, step: (
                    0 < steps_done
                    and step <= (steps_done if tag == "batch_loss" else steps_validated)
                ),
            )
        self._train, self._validation = (
            tf.summary.create_file_writer(str(directory)) for directory in directories
        )

    def flush(self) -> None:
        """Writes everything to disk."""
        self._train.flush()
        self._validation.flush()

    def close(self) -> None:
        self._train.close()
        self._validation.close()

    def start(
        self,
        config: config_lib.Config,
        network: network_lib.Network,
        batch: dict[str, np.ndarray],
        drawn: np.ndarray,
    ) -> None:
        """Writes the flags, the graph, and the inputs of both branches for some images.

        Args:
            config: settings of the run.
            network: its inference graph is written.
            batch: training examples from `input_pipeline`.
            drawn: these with their labels as one image, from `train_batch`.
        """
        with self._train.as_default(step=0):
            lines = "".join(
                f"| `--{name}` | `{text_lib.printable(json.dumps(value, ensure_ascii=False))}` |\n"
                for name, value in config.to_json().items()
            )
            tf.summary.text("flags", f"| flag | value |\n| --- | --- |\n{lines}")
            tf.summary.graph(_inference_graph(network))
            tf.summary.image("input/train_batch", drawn)
            tf.summary.image(
                "input/rgb", charts.rgb_images(batch["image"][:_INPUTS]), max_outputs=_INPUTS
            )
            tf.summary.image(
                "input/gray_sequence",
                charts.gray_images(batch["sequence"][:_INPUTS]),
                max_outputs=_INPUTS,
            )

    def batch_loss(self, loss: float, step: int) -> None:
        with self._train.as_default(step=step):
            tf.summary.scalar("batch_loss", loss)

    def epoch(
        self, train: metrics.Means, validation: metrics.Means, rates: dict[str, float], step: int
    ) -> None:
        """Writes one point of each curve.

        Args:
            train, validation: means over the epoch.
            rates: further values of training by tag, e.g. "learning_rate".
            step: steps done at the end of the epoch.
        """
        for writer, means in ((self._train, train), (self._validation, validation)):
            with writer.as_default(step=step):
                for name in ("loss", "top1", "top5"):
                    tf.summary.scalar(name, getattr(means, name))
        with self._train.as_default(step=step):
            for name, value in rates.items():
                tf.summary.scalar(name, value)

    def predictions(
        self,
        data: dataset_lib.Dataset,
        predictions: predictions_lib.Predictions,
        preprocessing: views_lib.Preprocessing,
        step: int,
    ) -> None:
        """Writes validation images, evenly spread over the split, with true and predicted class."""
        count = len(data.validation)
        indices = np.unique(np.linspace(0, count - 1, _PREDICTIONS).astype(np.int64))
        batch = input_pipeline.examples(data.validation.take(indices), preprocessing)
        png = charts.predictions_figure(
            batch["image"],
            [data.class_names[label] for label in predictions.label[indices]],
            [data.class_names[top[0]] for top in predictions.top[indices]],
            predictions.probability[indices],
        )
        with self._validation.as_default(step=step), devices.on_cpu():
            tf.summary.image("predictions", tf.io.decode_png(png)[None])


def _inference_graph(network: network_lib.Network) -> tf.Graph:
    signature = {
        tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in network.model.inputs
    }
    function = tf.function(lambda inputs: network.model(inputs, training=False))
    return function.get_concrete_function(signature).graph
