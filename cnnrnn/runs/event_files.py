"""TensorBoard's files of a run that goes on: without what the resumed run will write again."""

import pathlib
from collections.abc import Callable

import tensorflow as tf

from cnnrnn.system import atomic_files

_BUFFER_BYTES = 1 << 20
Keep = Callable[[str, int], bool]


def keep_only(directory: pathlib.Path, keep: Keep) -> None:
    """Drops points from the event files of a folder, and what a kill has left half written.

    A run that was killed goes on from its last checkpoint, and writes anew what came after it.

    Args:
        directory: holds the files; may not exist.
        keep: keep(tag, step) says whether a point stays.
    """
    for path in sorted(directory.glob("*tfevents*")):
        records, whole = _read(path)
        kept = [record for record in records if _stays(record, keep)]
        if whole and len(kept) == len(records):
            continue
        if len(kept) <= 1:  # the first says which version of the format it is
            path.unlink()
            continue
        with atomic_files.replacing(path) as temporary:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in kept:
                    writer.write(record)


def scalars(directory: pathlib.Path) -> list[tuple[str, int, float]]:
    """All points of the curves in a folder's files: tag, step, value; sorted."""
    found = []
    for path in directory.glob("*tfevents*"):
        for record in _read(path)[0]:
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name in ("scalars", ""):
                    found.append((value.tag, event.step, tf.make_ndarray(value.tensor).item()))
    return sorted(found)


def _read(path: pathlib.Path) -> tuple[list[bytes], bool]:
    """The records of a file, and whether it ends with a whole one."""
    records = []
    try:
        for record in tf.data.TFRecordDataset(
            str(path), buffer_size=_BUFFER_BYTES
        ).as_numpy_iterator():
            records.append(record)
    except tf.errors.DataLossError:
        return records, False
    return records, True


def _stays(record: bytes, keep: Keep) -> bool:
    event = tf.compat.v1.Event.FromString(record)
    if event.HasField("graph_def"):
        return keep("graph", event.step)
    return all(keep(value.tag, event.step) for value in event.summary.value)
