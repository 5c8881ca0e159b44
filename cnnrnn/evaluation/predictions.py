"""One pass over a split that scores every example exactly once."""

import dataclasses

import numpy as np
import tensorflow as tf

from cnnrnn import errors, metrics
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import progress, stop_signals


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What the network said of each example of a split, by row."""

    label: np.ndarray  # (N,) int64
    top: np.ndarray  # (N, k) int32, most likely class first
    probability: np.ndarray  # (N,) float32, of the most likely class
    loss: np.ndarray  # (N,) float32, nats
    top1: np.ndarray  # (N,) float32, 0 or 1
    top5: np.ndarray  # (N,) float32, 0 or 1
    # What the branches put out, (N, 2048) float32 each, where the step returned it.
    cnn: np.ndarray | None = None
    rnn: np.ndarray | None = None

    @property
    def means(self) -> metrics.Means:
        columns = (self.loss, self.top1, self.top5, np.ones_like(self.loss))
        return metrics.Means.of_sums(np.array([np.sum(c, dtype=np.float64) for c in columns]))


def predict(
    split: dataset_lib.Split,
    eval_step,
    strategy: tf.distribute.Strategy,
    *,
    batch_size: int,
    preprocessing: views_lib.Preprocessing,
    label: str,
    features: input_pipeline.Features | None = None,
) -> Predictions:
    """Scores a whole split.

    Args:
        split: what to score.
        eval_step: from `steps.make_eval_step`.
        strategy: the one that `eval_step` was made for.
        batch_size: global batch.
        preprocessing: as in training.
        label: what the progress line calls it.
        features: what the CNN makes of each image of the split; then it is not run.

    Raises:
        RunError: an image cannot be decoded, or an example was not seen exactly once.
    """
    batches = input_pipeline.evaluation(
        split, batch_size=batch_size, preprocessing=preprocessing, features=features
    )
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    iterator = input_pipeline.distribute(batches, strategy)
    with progress.Progress(label, len(split), "images") as bar:
        while done < len(split):
            try:
                batch = next(iterator)
            except tf.errors.OpError as error:
                rows = np.arange(done, min(done + batch_size, len(split)))
                raise input_pipeline.decoding_error(split, rows, error) from error
            outputs = {name: value.numpy() for name, value in eval_step(batch).items()}
            counted = outputs["weight"] > 0
            parts.append({name: value[counted] for name, value in outputs.items()})
            done += int(counted.sum())
            bar.update(done)
            stop_signals.check()
    return _by_row({name: np.concatenate([p[name] for p in parts]) for name in parts[0]}, split)


def _by_row(columns: dict[str, np.ndarray], split: dataset_lib.Split) -> Predictions:
    order = np.argsort(columns["index"], kind="stable")
    rows = columns["index"][order]
    if not np.array_equal(rows, np.arange(len(split))):
        raise errors.RunError(
            f"evaluation saw {len(rows):,} examples, {len(np.unique(rows)):,} of them different, "
            f"of {len(split):,}: each must be seen exactly once. This is a fault of the program."
        )
    names = {field.name for field in dataclasses.fields(Predictions)} & columns.keys()
    return Predictions(**{name: columns[name][order] for name in names})
