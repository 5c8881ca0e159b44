"""`explain`: writes attribution maps of images as PNGs; see `models.attribution`."""

import itertools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import image_paths
from cnnrnn.evaluation import charts
from cnnrnn.models import attribution
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import atomic_files, devices
from cnnrnn.system import text as text_lib

_FOLDER = "explanations"
_MOST_CLASSES = 20  # in a figure
_MAX_NAME_BYTES = 150  # a file name can have 255, and a number and a suffix are added


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Writes a PNG per image into the run's folder, and prints the classes shown in it.

    Args:
        arguments: images, as in `predict`.
        config: `model`, `top` and `max_megapixels` are used.

    Raises:
        UsageError: if there are no images, or no trained run, or --top is too large.
        RunError: if some images cannot be read, raised after explaining the others; or if a PNG
            cannot be written.
    """
    paths = image_paths.expand(arguments)
    root = config.model_dir
    classifier = classifier_lib.load(
        root, config.data.eval_image_size, lstm_kernel="ours"
    )  # see `attribution.Explainer`
    top = config.prediction.top_of_run
    if min(top, len(classifier.class_names)) > _MOST_CLASSES:
        raise errors.UsageError(
            f"--top={top}: a figure has room for {_MOST_CLASSES} classes. Use "
            f"--top={_MOST_CLASSES} or less."
        )
    explainer = attribution.Explainer(classifier.network)
    bad, named = 0, {}
    for path in paths:
        name = text_lib.printable(path)
        encoded, problem = image_paths.read(path, config.data.max_pixels)
        if problem:
            bad += 1
            print(f"{name}: {problem}")
            continue
        png, predictions = _explain(classifier, explainer, encoded, top)
        target = root / _FOLDER / f"{_name(path, named)}.png"
        try:
            with atomic_files.replacing(target) as temporary:
                temporary.write_bytes(png)
        except OSError as error:
            raise errors.RunError(f"cannot write {target}: {error.strerror}") from error
        classes = ", ".join(f"{label} {probability:.1%}" for label, probability in predictions)
        print(f"{name}: {classes}\n  {text_lib.printable(str(target))}", flush=True)
    if bad:
        raise errors.RunError(f"{bad:,} of {len(paths):,} images could not be read.")


def _name(path: str, named: dict[str, str]) -> str:
    """The name of an image's explanation: its path, so that another call replaces it.

    Args:
        path: of the image, as given.
        named: path of each name given earlier in this call; the new one is added.
    """
    path = os.path.normpath(path)
    encoded = os.fsencode(path.replace(os.sep, "-"))[-_MAX_NAME_BYTES:]
    name = encoded.decode(errors="ignore").lstrip(".-")  # no hidden file
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    names = itertools.chain([name], numbered)
    return next(name for name in names if named.setdefault(name, path) == path)


def _explain(
    classifier: classifier_lib.Classifier,
    explainer: attribution.Explainer,
    encoded: bytes,
    top: int,
) -> tuple[bytes, list[tuple[str, float]]]:
    """The PNG of one image, and its most likely classes with their probabilities."""
    with devices.on_cpu():
        views = classifier.views(tf.constant(encoded))
    batch = {name: view[tf.newaxis] for name, view in views.items()}
    probabilities = classifier.probabilities(batch).numpy()[0]
    labels = np.argsort(-probabilities, kind="stable")[:top]
    predictions = classifier.top(probabilities, top)
    (explanations,) = explainer.explain(batch, labels[np.newaxis])
    classes = [
        (*prediction, explanation.cam, explanation.timesteps)
        for prediction, explanation in zip(predictions, explanations, strict=True)
    ]
    return charts.explanation_figure(views["image"].numpy(), classes), predictions
