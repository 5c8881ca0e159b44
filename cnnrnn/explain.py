"""`explain`: pictures with the places where each branch found the most likely classes."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnrnn import atomic_file, errors, example_source, explanations, picture_check, plots, trained
from cnnrnn import config as config_lib
from cnnrnn import predict as predict_command

_FOLDER = "explanations"


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Writes a PNG for each picture into the run's folder and prints what it shows.

    Args:
        arguments: pictures, as `predict` takes them.
        config: `model` and `top`.

    Raises:
        UsageError: there is nothing to explain, or nothing to do it with.
        RunError: some pictures are bad, or a PNG cannot be written; the others are explained.
    """
    paths = predict_command.paths_of(arguments)
    root = pathlib.Path(config.model or config.run_dir).expanduser()
    classifier = trained.load(root)
    explainer = explanations.Explainer(classifier.network)
    bad = 0
    for number, path in enumerate(paths, 1):
        try:
            encoded = example_source.read_file(path)
            fault = picture_check.examine(encoded, config.max_pixels).fault
        except OSError as error:
            fault = f"cannot be read ({error.strerror or error})"
        if fault:
            bad += 1
            print(f"{errors.printable(path)}: {fault}")
            continue
        png, answer = explain(classifier, explainer, encoded, config.top)
        written = root / _FOLDER / f"{number:04d}-{pathlib.Path(path).stem}.png"
        try:
            with atomic_file.replacing(written) as temporary:
                temporary.write_bytes(png)
        except OSError as error:
            raise errors.RunError(f"cannot write {written}: {error.strerror}") from error
        said = ", ".join(f"{name} {probability:.1%}" for name, probability in answer)
        print(f"{errors.printable(path)}: {said}\n  {errors.printable(str(written))}", flush=True)
    if bad:
        raise errors.RunError(f"{bad:,} of {len(paths):,} pictures could not be read.")


def explain(
    classifier: trained.Classifier,
    explainer: explanations.Explainer,
    encoded: bytes,
    top: int,
) -> tuple[bytes, list[tuple[str, float]]]:
    """The PNG of one picture, and the classes that it shows with their probabilities."""
    views = classifier.views(tf.constant(encoded))
    batch = {name: view[tf.newaxis] for name, view in views.items()}
    probabilities = classifier.probabilities(batch).numpy()[0]
    labels = np.argsort(-probabilities, kind="stable")[:top]
    answer = classifier.top(probabilities, top)
    maps = [explainer.explain(batch, np.array([label]))[0] for label in labels]
    shown = [(*said, found.cam, found.bands) for said, found in zip(answer, maps, strict=True)]
    return plots.explanation_figure(views["image"].numpy(), shown), answer
