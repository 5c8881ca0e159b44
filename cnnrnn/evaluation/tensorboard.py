"""The report's figures and charts in TensorBoard."""

import pathlib
from typing import Any

import tensorflow as tf

from cnnrnn.runs import event_files


def write(
    directory: pathlib.Path, epoch: int, results: dict[str, Any], images: dict[str, bytes]
) -> None:
    """The report's figures and charts, in the place of those of an earlier evaluation.

    Args:
        directory: of the event file.
        epoch: of the weights, the place on the x axis.
        results: as in results.json.
        images: PNGs by name.
    """
    event_files.keep_only(directory, lambda tag, step: False)
    figures = {name: results["validation"][name] for name in ("loss", "top1", "top5")}
    for name, ends in results["intervals_95"].items():
        figures |= dict(zip((f"{name}/low", f"{name}/high"), ends, strict=True))
    figures["calibration_error"] = results["calibration_error"]
    for name in ("cnn", "rnn"):
        figures |= {f"{name.upper()} outputs/{k}": v for k, v in results["branches"][name].items()}
    for trial in results["branches"]["silenced"][1:]:
        figures |= {f"{trial['name']}/{name}": trial[name] for name in ("loss", "top1", "top5")}
    writer = tf.summary.create_file_writer(str(directory))
    with writer.as_default(step=epoch):
        for name, value in figures.items():
            if value is not None:
                tf.summary.scalar(f"evaluation/{name}", value)
        for name, png in images.items():
            tf.summary.image(f"evaluation/{name}", tf.io.decode_png(png, channels=3)[None])
        tf.summary.text("evaluation/branches", results["branches"]["verdict"])
    writer.close()
