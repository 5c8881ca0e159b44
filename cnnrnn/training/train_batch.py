"""train_batch.png: images of a training batch as the network sees them, with their labels."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnrnn.evaluation import charts
from cnnrnn.system import atomic_files
from cnnrnn.system import devices as devices_lib

_MOST = 16  # images


def write(
    path: pathlib.Path, batch: dict[str, np.ndarray | tf.Tensor], class_names: Sequence[str]
) -> tf.Tensor:
    """Writes a PNG of the first images of a batch.

    Args:
        path: of the PNG.
        batch: from `input_pipeline.training`, without cached features.
        class_names: by label.

    Returns:
        (1, height, width, 3) uint8, the PNG's pixels, for tf.summary.image.

    Raises:
        OSError: the file cannot be written.
    """
    batch = {name: np.asarray(values[:_MOST]) for name, values in batch.items()}
    titles = [_title(batch, i, class_names) for i in range(len(batch["label"]))]
    png = charts.training_figure(batch["image"], batch["sequence"], titles)
    with atomic_files.replacing(path) as temporary:
        temporary.write_bytes(png)
    with devices_lib.on_cpu():
        return tf.io.decode_png(png, channels=3)[None]


def _title(batch: dict[str, np.ndarray], i: int, class_names: Sequence[str]) -> str:
    """The label of an image; of a mixed one both, each after its share: long names are cut."""
    name = class_names[batch["label"][i]]
    share = batch["share"][i] if "share" in batch else 1.0
    if f"{share:.2f}" == "1.00" or batch["label"][i] == batch["other_label"][i]:
        return name
    return f"{share:.2f} {name}\n+ {1 - share:.2f} {class_names[batch['other_label'][i]]}"
