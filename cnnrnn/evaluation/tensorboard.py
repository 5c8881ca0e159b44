"""TensorBoard summaries of an evaluation: the report's numbers, charts and verdict."""

import pathlib
from typing import Any

import tensorflow as tf

from cnnrnn.runs import event_files


def write(
    directory: pathlib.Path, epoch: int, results: dict[str, Any], charts: dict[str, bytes]
) -> None:
    """Replaces the summaries of an earlier evaluation.

    Args:
        directory: of the event files.
        epoch: of the evaluated weights; the step of all summaries.
        results: as in results.json.
        charts: PNGs by name.
    """
    event_files.keep_only(directory, lambda tag, step: False)
    branches = results["branches"]
    scalars = {name: results["validation"][name] for name in ("loss", "top1", "top5")}
    for name in ("recall", "top5", "precision", "f1"):
        scalars[f"macro_{name}"] = results["macro"][name]
    for name, ends in results["intervals_95"].items():
        scalars |= dict(zip((f"{name}/low", f"{name}/high"), ends, strict=True))
    scalars["calibration_error"] = results["calibration_error"]
    for name in ("cnn", "rnn"):
        outputs = branches[name] or {}  # null for a branch that the network lacks
        scalars |= {f"{name.upper()} outputs/{key}": value for key, value in outputs.items()}
    for ablation in branches["ablations"][1:]:
        scalars |= {
            f"{ablation['name']}/{name}": ablation[name] for name in ("loss", "top1", "top5")
        }
    writer = tf.summary.create_file_writer(str(directory))
    with writer.as_default(step=epoch):
        for name, value in scalars.items():
            if value is not None:
                tf.summary.scalar(f"evaluation/{name}", value)
        for name, png in charts.items():
            tf.summary.image(f"evaluation/{name}", tf.io.decode_png(png, channels=3)[None])
        tf.summary.text("evaluation/verdict", branches["verdict"])
    writer.close()
