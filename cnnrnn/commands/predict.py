"""`predict`: the most likely classes of images.

Only predictions go to standard output, so that it can be piped; progress and messages go to
standard error. An image that cannot be read gets an error in its place and makes the exit code 1;
it does not affect the others.
"""

import csv
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import example_source, image_paths, input_pipeline
from cnnrnn.export import loader
from cnnrnn.preprocessing import image_header
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.settings import data as data_settings
from cnnrnn.system import console, progress
from cnnrnn.system import text as text_lib

_BATCH_SIZE = 32

Classes = list[tuple[str, float]]  # (name, probability), most likely first; empty: bad image
Prediction = Classes | str  # or the problem with the image
Prepare = Callable[[tf.Tensor], Any]  # () string -> an element of a batch; runs in a pipeline
Classify = Callable[[Any], Iterable[Classes]]  # batch -> classes of each element


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Classifies images and prints the predictions.

    Args:
        arguments: files, folders, patterns, or '-' to read paths from standard input, one a line.
        config: the prediction group and `max_megapixels` are used.

    Raises:
        UsageError: if there are no images, or neither a trained run nor an export.
        RunError: if some images cannot be read, raised after the predictions for the others.
    """
    with console.on_stderr():  # its notes
        paths = image_paths.expand(arguments)
    write, bad = None, 0
    bar = progress.Progress("predict", len(paths), "images", stream=sys.stderr)
    with console.on_stderr(), bar:
        for done, (path, prediction) in enumerate(predictions(paths, config), 1):
            bar.clear()  # standard output can be the same terminal
            # Not before: there is no header of a table if the model cannot be loaded.
            write = write or _WRITERS[config.prediction.format](sys.stdout)
            write(text_lib.printable(path), prediction)
            bad += isinstance(prediction, str)
            bar.update(done)
    if bad:
        raise errors.RunError(f"{bad:,} of {len(paths):,} images could not be read.")


def predictions(
    paths: Sequence[str], config: config_lib.Config
) -> Iterator[tuple[str, Prediction]]:
    """The paths with their predictions, in order.

    A pipeline skips bad images. They are checked afterwards to find the problem, so that good ones
    are not slowed down.

    Raises:
        UsageError: if there is neither a trained run nor an export.
        RunError: if it is damaged.
    """
    folder = config.model_dir
    load = _load_export if loader.is_export(folder) else _load_run
    prepare, classify, max_pixels = load(folder, config)
    # Regular files only: reading a pipe or a device could block forever.
    indices = [index for index, path in enumerate(paths) if os.path.isfile(path)]
    files = example_source.absolute([paths[index] for index in indices])
    batches = (
        tf.data.Dataset.from_tensor_slices(
            (np.array(indices, np.int64), np.array(files, np.bytes_))
        )
        .map(
            lambda index, file: (index, prepare(tf.io.read_file(file))),
            num_parallel_calls=os.cpu_count(),
        )
        .ignore_errors(log_warning=False)
        .batch(_BATCH_SIZE)
        .prefetch(2)
        .with_options(input_pipeline.options())
    )
    following = 0  # index of the next path to return
    for batch_indices, batch in batches:
        for index, classes in zip(batch_indices.numpy(), classify(batch), strict=True):
            for path in paths[following:index]:
                yield path, _problem(path, max_pixels)
            yield paths[index], classes or _problem(paths[index], max_pixels)
            following = index + 1
    for path in paths[following:]:
        yield path, _problem(path, max_pixels)


def _load_run(folder: pathlib.Path, config: config_lib.Config) -> tuple[Prepare, Classify, int]:
    """Functions that classify with the best weights of a run, and the most pixels of an image."""
    classifier = classifier_lib.load(folder, config.data.eval_image_size)
    batch = {
        name: tf.TensorSpec((None, *view.shape)) for name, view in classifier.view_specs.items()
    }
    probabilities = tf.function(classifier.probabilities, input_signature=[batch])
    top, max_pixels = config.prediction.top_of_run, config.data.max_pixels

    def prepare(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return classifier.views(image_header.limited(encoded, max_pixels))

    def classify(views: dict[str, tf.Tensor]) -> Iterator[Classes]:
        return (classifier.top(row, top) for row in probabilities(views).numpy())

    return prepare, classify, max_pixels


def _load_export(folder: pathlib.Path, config: config_lib.Config) -> tuple[Prepare, Classify, int]:
    """Likewise with an export, which decodes images itself, up to a size of its own."""
    logging.warning(f"loading the export {folder}. {loader.WARNING}")
    export = loader.load(folder, trusted=config.prediction.trust_export)
    loader.check_image_size(export, folder, config.data.eval_image_size)
    top = loader.check_top(export, folder, config.prediction.top)
    limit = float(export.metadata.get("max_megapixels", math.inf))  # an earlier version had none
    asked = config.data.max_megapixels
    if limit < asked:
        logging.warning(
            f"the export was created with --max_megapixels={limit:.15g}. It reads no larger images."
        )
    is_given = asked != config_lib.Config().data.max_megapixels or math.isinf(limit)
    max_pixels = data_settings.pixels(min(limit, asked) if is_given else limit)

    def prepare(encoded: tf.Tensor) -> tf.Tensor:
        return image_header.limited(encoded, max_pixels)

    def classify(files: tf.Tensor) -> Iterator[Classes]:
        outputs = export.signatures["serving_default"](image_bytes=files)
        columns = (outputs[name].numpy() for name in ("classes", "probabilities", "error"))
        for classes, probabilities, error in zip(*columns, strict=True):
            pairs = zip(classes[:top], probabilities, strict=False)
            yield [] if error else [(name.decode(), float(value)) for name, value in pairs]

    return prepare, classify, max_pixels


def _problem(path: str, max_pixels: int) -> str:
    """The problem with an image that was not classified."""
    _, problem = image_paths.read(path, max_pixels)
    return problem or "could not be classified"


def _text(out: TextIO) -> Callable[[str, Prediction], None]:
    def write(path: str, prediction: Prediction) -> None:
        if isinstance(prediction, str):
            print(f"{path}: {prediction}", file=out)
            return
        print(path, file=out)
        for name, probability in prediction:
            print(f"  {probability:>6.1%}  {name}", file=out)

    return write


def _csv(out: TextIO) -> Callable[[str, Prediction], None]:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "rank", "class", "probability", "error"))

    def write(path: str, prediction: Prediction) -> None:
        if isinstance(prediction, str):
            writer.writerow((path, "", "", "", prediction))
            return
        for rank, (name, probability) in enumerate(prediction, 1):
            writer.writerow((path, rank, name, f"{probability:.6f}", ""))

    return write


def _jsonl(out: TextIO) -> Callable[[str, Prediction], None]:
    def write(path: str, prediction: Prediction) -> None:
        if isinstance(prediction, str):
            record = {"path": path, "error": prediction}
        else:
            classes = [{"class": name, "probability": value} for name, value in prediction]
            record = {"path": path, "classes": classes}
        print(json.dumps(record), file=out)  # in ASCII, which every encoding of `out` has

    return write


_WRITERS = {"text": _text, "csv": _csv, "jsonl": _jsonl}
