"""What TensorBoard shows of a phase."""

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
from cnnrnn.system import text as text_lib

_INPUTS = 4
_PREDICTIONS = 8


class Summaries:
    """Event files of one phase: a writer for training and one for validation.

    The two have the same tags, so that TensorBoard draws their curves into one chart. The x axis
    is the number of steps done in the phase.
    """

    def __init__(
        self,
        folder: run_folder.RunFolder,
        phase: phases.Phase,
        *,
        steps_done: int,
        steps_validated: int,
    ):
        """Opens the files of a phase, and drops what will be written again.

        Args:
            folder: of the run.
            phase: whose.
            steps_done: up to which step `batch_loss` is right.
            steps_validated: up to which step the points of whole epochs are.
        """
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
        """What was written so far is on the disk, whatever becomes of the process."""
        self._train.flush()
        self._validation.flush()

    def close(self) -> None:
        self._train.close()
        self._validation.close()

    def start(
        self, config: config_lib.Config, network: network_lib.Network, batch: dict[str, np.ndarray]
    ) -> None:
        """The flags as text, the graph, and a sample of what the two branches see.

        Args:
            config: the run's settings.
            network: for its graph.
            batch: some training examples, as `input_pipeline` makes them.
        """
        with self._train.as_default(step=0):
            rows = "".join(
                f"| `--{name}` | `{text_lib.printable(json.dumps(value, ensure_ascii=False))}` |\n"
                for name, value in config.to_json().items()
            )
            tf.summary.text("flags", f"| flag | value |\n| --- | --- |\n{rows}")
            tf.summary.graph(_inference_graph(network))
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
        self,
        train: metrics.Means,
        validation: metrics.Means,
        *,
        learning_rate: float,
        images_per_second: float,
        waiting: float,
        step: int,
    ) -> None:
        """The curves: a point per epoch. `waiting` is the share spent waiting for images."""
        for writer, means in ((self._train, train), (self._validation, validation)):
            with writer.as_default(step=step):
                for name in ("loss", "top1", "top5"):
                    tf.summary.scalar(name, getattr(means, name))
        with self._train.as_default(step=step):
            tf.summary.scalar("learning_rate", learning_rate)
            tf.summary.scalar("images_per_second", images_per_second)
            tf.summary.scalar("waiting_for_input", waiting)

    def predictions(
        self,
        validation: dataset_lib.Split,
        predictions: predictions_lib.Predictions,
        class_names: tuple[str, ...],
        preprocessing: views_lib.Preprocessing,
        step: int,
    ) -> None:
        """Validation images, evenly spread over the split, with true and predicted names."""
        rows = np.unique(np.linspace(0, len(validation) - 1, _PREDICTIONS).astype(np.int64))
        sample = next(
            input_pipeline.evaluation(
                validation.take(rows), batch_size=len(rows), preprocessing=preprocessing
            ).as_numpy_iterator()
        )
        png = charts.predictions_figure(
            sample["image"],
            [class_names[label] for label in predictions.label[rows]],
            [class_names[top[0]] for top in predictions.top[rows]],
            predictions.probability[rows],
        )
        with self._validation.as_default(step=step):
            tf.summary.image("predictions", tf.io.decode_png(png)[None])


def _inference_graph(network: network_lib.Network) -> tf.Graph:
    signature = {
        tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in network.model.inputs
    }
    function = tf.function(lambda inputs: network.model(inputs, training=False))
    return function.get_concrete_function(signature).graph
