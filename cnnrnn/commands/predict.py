"""`predict`: the most likely classes of images.

Standard output has the answers and nothing else, so that it can go into a pipe; progress and
remarks go to standard error, on a terminal. A bad image is answered in its place by what is
wrong with it, and makes the exit code 1; the others are answered all the same.
"""

import csv
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import image_paths, input_pipeline
from cnnrnn.export import loader
from cnnrnn.preprocessing import image_header
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import progress
from cnnrnn.system import text as text_lib

_BATCH = 32

Named = list[tuple[str, float]]  # (class name, probability), most likely first; none: it is bad
Answer = Named | str  # or what is wrong
Prepare = Callable[[tf.Tensor], Any]  # () string -> what batches are made of, inside a pipeline
Classify = Callable[[Any], Iterable[Named]]  # of a batch


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Classifies images and prints what they are.

    Args:
        arguments: files, folders, patterns, or '-' for names on standard input, one a line.
        config: `model`, `top` and `format`.

    Raises:
        UsageError: there is nothing to classify, or nothing to do it with.
        RunError: some images are bad; raised when the others are answered.
    """
    paths = image_paths.expand(arguments)
    write = _WRITERS[config.prediction.format](sys.stdout)
    bad = 0
    with progress.Progress("predict", len(paths), "images", stream=sys.stderr) as bar:
        for done, (path, answer) in enumerate(answers(paths, config), 1):
            bar.clear()  # answers and progress can be on one terminal
            write(text_lib.printable(path), answer)
            bad += isinstance(answer, str)
            bar.update(done)
    if bad:
        raise errors.RunError(f"{bad:,} of {len(paths):,} images could not be read.")


def answers(paths: Sequence[str], config: config_lib.Config) -> Iterator[tuple[str, Answer]]:
    """Each path with its answer, in order.

    The good ones come out of a pipeline that leaves the bad ones out; what is wrong with those is
    found out afterwards, so that good images pay nothing for it.

    Raises:
        UsageError: there is nothing to classify them with.
        RunError: it is damaged.
    """
    folder = config.model_dir
    prepare, classify = (_export if loader.is_export(folder) else _run)(folder, config)
    # Not of pipes and devices: those would be waited for without end.
    rows = [row for row, path in enumerate(paths) if os.path.isfile(path)]
    files = [os.fsencode(os.path.abspath(paths[row])) for row in rows]
    batches = (
        tf.data.Dataset.from_tensor_slices((np.array(rows, np.int64), np.array(files, np.bytes_)))
        .map(
            lambda row, file: (row, prepare(tf.io.read_file(file))),
            num_parallel_calls=os.cpu_count(),
        )
        .ignore_errors(log_warning=False)
        .batch(_BATCH)
        .prefetch(2)
        .with_options(input_pipeline.options())
    )
    following = 0
    for read, batch in batches:
        for row, answer in zip(read.numpy(), classify(batch), strict=True):
            yield from ((path, _fault(path, config)) for path in paths[following:row])
            yield paths[row], answer or _fault(paths[row], config)
            following = row + 1
    yield from ((path, _fault(path, config)) for path in paths[following:])


def _run(folder: pathlib.Path, config: config_lib.Config) -> tuple[Prepare, Classify]:
    """Classifies by the best weights of a run."""
    classifier = classifier_lib.load(folder)
    batch = {
        name: tf.TensorSpec((None, *view.shape)) for name, view in classifier_lib.VIEWS.items()
    }
    probabilities = tf.function(classifier.probabilities, input_signature=[batch])

    def prepare(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return classifier.views(image_header.limited(encoded, config.data.max_pixels))

    def classify(views: dict[str, tf.Tensor]) -> Iterator[Named]:
        return (classifier.top(row, config.prediction.top) for row in probabilities(views).numpy())

    return prepare, classify


def _export(folder: pathlib.Path, config: config_lib.Config) -> tuple[Prepare, Classify]:
    """Classifies by an export, which does all of it, and marks bad images by itself."""
    export = loader.load(folder)
    named, top = export.notes["named"], config.prediction.top
    if top > named and export.notes["classes"] > named:
        raise errors.UsageError(
            f"--top={top}: the export {folder} names {named} classes. Export anew with "
            f"--top={top}, or predict from the run."
        )

    def classify(files: tf.Tensor) -> Iterator[Named]:
        said = export.signatures["serving_default"](image_bytes=files)
        columns = (said[name].numpy() for name in ("classes", "probabilities", "error"))
        for classes, probabilities, error in zip(*columns, strict=True):
            best = zip(classes[:top], probabilities, strict=False)
            yield [] if error else [(name.decode(), float(share)) for name, share in best]

    return tf.identity, classify


def _fault(path: str, config: config_lib.Config) -> str:
    """What is wrong with an image that was not classified."""
    _, fault = image_paths.read(path, config.data.max_pixels)
    return fault or "could not be classified"


def _text(out: TextIO) -> Callable[[str, Answer], None]:
    def write(path: str, answer: Answer) -> None:
        if isinstance(answer, str):
            print(f"{path}: {answer}", file=out)
            return
        print(path, file=out)
        for name, probability in answer:
            print(f"  {probability:>6.1%}  {name}", file=out)

    return write


def _csv(out: TextIO) -> Callable[[str, Answer], None]:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "rank", "class", "probability", "error"))

    def write(path: str, answer: Answer) -> None:
        if isinstance(answer, str):
            writer.writerow((path, "", "", "", answer))
            return
        for rank, (name, probability) in enumerate(answer, 1):
            writer.writerow((path, rank, name, f"{probability:.6f}", ""))

    return write


def _jsonl(out: TextIO) -> Callable[[str, Answer], None]:
    def write(path: str, answer: Answer) -> None:
        if isinstance(answer, str):
            record = {"path": path, "error": answer}
        else:
            classes = [{"class": name, "probability": float(p)} for name, p in answer]
            record = {"path": path, "classes": classes}
        print(json.dumps(record, ensure_ascii=False), file=out)

    return write


_WRITERS = {"text": _text, "csv": _csv, "jsonl": _jsonl}
