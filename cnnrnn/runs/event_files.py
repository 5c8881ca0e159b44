"""TensorBoard event files: reading scalars, and dropping what a resumed run writes again."""

import math
import pathlib
from collections.abc import Callable

import tensorflow as tf

from cnnrnn.system import atomic_files

_BUFFER_BYTES = 1 << 20
Keep = Callable[[str, int], bool]


def keep_only(directory: pathlib.Path, keep: Keep) -> None:
    """Removes points and incomplete records from the event files of a folder.

    A killed run resumes from its last checkpoint and writes later points again.

    Args:
        directory: folder of the files; need not exist.
        keep: keep(tag, step) returns whether to keep a point.
    """
    for path in sorted(directory.glob("*tfevents*")):
        records, complete = _read(path)
        kept = [record for record in records if _is_kept(record, keep)]
        if complete and len(kept) == len(records):
            continue
        if len(kept) <= 1:  # the first record is the version of the format
            path.unlink()
            continue
        with atomic_files.replacing(path) as temporary:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in kept:
                    writer.write(record)


def scalars(directory: pathlib.Path) -> list[tuple[str, int, float]]:
    """All scalars in the event files of a folder, as (tag, step, value), sorted."""
    points = []
    for path in directory.glob("*tfevents*"):
        for record in _read(path)[0]:
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name in ("scalars", ""):
                    points.append((value.tag, event.step, tf.make_ndarray(value.tensor).item()))
    return sorted(points)


def images_per_second(directory: pathlib.Path) -> float:
    """The speed of the fastest epoch in the event files of training; NaN if there are none."""
    rates = [value for tag, _, value in scalars(directory) if tag == "images_per_second"]
    return max(rates, default=math.nan)


def _read(path: pathlib.Path) -> tuple[list[bytes], bool]:
    """The records of a file, and whether the last one is complete."""
    records = []
    try:
        for record in tf.data.TFRecordDataset(
            str(path), buffer_size=_BUFFER_BYTES
        ).as_numpy_iterator():
            records.append(record)
    except tf.errors.DataLossError:
        return records, False
    return records, True


def _is_kept(record: bytes, keep: Keep) -> bool:
    event = tf.compat.v1.Event.FromString(record)
    if event.HasField("graph_def"):
        return keep("graph", event.step)
    return all(keep(value.tag, event.step) for value in event.summary.value)
