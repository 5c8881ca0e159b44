"""`explain`: images with the places where each branch found the most likely classes."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import image_paths
from cnnrnn.evaluation import charts
from cnnrnn.models import attribution
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import atomic_files
from cnnrnn.system import text as text_lib

_FOLDER = "explanations"
_LONGEST_STEM = 150  # bytes


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Writes a PNG for each image into the run's folder and prints what it shows.

    Args:
        arguments: images, as `predict` takes them.
        config: `model` and `top`.

    Raises:
        UsageError: there is nothing to explain, or nothing to do it with.
        RunError: some images are bad, the others are explained; or a PNG cannot be written.
    """
    paths = image_paths.expand(arguments)
    root = config.model_dir
    classifier = classifier_lib.load(root)
    explainer = attribution.Explainer(classifier.network)
    bad = 0
    for number, path in enumerate(paths, 1):
        shown = text_lib.printable(path)
        encoded, fault = image_paths.read(path, config.data.max_pixels)
        if fault:
            bad += 1
            print(f"{shown}: {fault}")
            continue
        png, answer = explain(classifier, explainer, encoded, config.prediction.top)
        # Names can be as long as a file's may be: what goes around one here would be too much.
        stem = os.fsencode(pathlib.Path(path).stem)[:_LONGEST_STEM].decode(errors="ignore")
        written = root / _FOLDER / f"{number:04d}-{stem}.png"
        try:
            with atomic_files.replacing(written) as temporary:
                temporary.write_bytes(png)
        except OSError as error:
            raise errors.RunError(f"cannot write {written}: {error.strerror}") from error
        said = ", ".join(f"{name} {probability:.1%}" for name, probability in answer)
        print(f"{shown}: {said}\n  {text_lib.printable(str(written))}", flush=True)
    if bad:
        raise errors.RunError(f"{bad:,} of {len(paths):,} images could not be read.")


def explain(
    classifier: classifier_lib.Classifier,
    explainer: attribution.Explainer,
    encoded: bytes,
    top: int,
) -> tuple[bytes, list[tuple[str, float]]]:
    """The PNG of one image, and the classes that it shows with their probabilities."""
    views = classifier.views(tf.constant(encoded))
    batch = {name: view[tf.newaxis] for name, view in views.items()}
    probabilities = classifier.probabilities(batch).numpy()[0]
    labels = np.argsort(-probabilities, kind="stable")[:top]
    answer = classifier.top(probabilities, top)
    (maps,) = explainer.explain(batch, labels[np.newaxis])
    shown = [(*said, found.cam, found.timesteps) for said, found in zip(answer, maps, strict=True)]
    return charts.explanation_figure(views["image"].numpy(), shown), answer
