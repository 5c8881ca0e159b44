"""Factors of the training loss by class: --class_weights."""

import difflib
import json
import pathlib
from typing import Any

import numpy as np
import sklearn.utils.class_weight

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.runs import run_folder
from cnnrnn.settings import paths
from cnnrnn.system import text as text_lib

_RECORDED = "class_weights_in_file"  # in config.json, beside the settings of a phase


def resolve(config: config_lib.Config, data: dataset_lib.Dataset) -> np.ndarray | None:
    """The factor of each class.

    Args:
        config: for --class_weights.
        data: the training images and the class names.

    Returns:
        (classes,) float32; None for 'none'. 'balanced' is N / (K * n) for a class with n of the N
        training images in K classes, so that it is 1 on average over the images. Classes without
        training images get 1, and so do those that a file does not list.

    Raises:
        UsageError: the file cannot be read, has an unknown class or a factor that is not valid, or
            leaves no class to learn.
    """
    value = config.training.class_weights
    if value == "none":
        return None
    if value == "balanced":
        return _balanced(data)
    return _from_file(paths.expanded(value), data)


def content(
    config: config_lib.Config, data: dataset_lib.Dataset, weights: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """The factors by class name if they come from a file, for `RunFolder.record`; else {}.

    The content of the file is part of the run, not only its name. 'balanced' follows from the
    images, which are checked in any case.
    """
    if config.training.class_weights in ("none", "balanced"):
        return {}
    return {_RECORDED: dict(zip(data.class_names, weights.tolist(), strict=True))}


def check(
    folder: run_folder.RunFolder,
    phase: phases.Phase,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    weights: np.ndarray | None,
) -> None:
    """Checks that a phase that has begun was trained with the same factors.

    Raises:
        UsageError: the file has changed since.
    """
    recorded = folder.config().get(phase.name, {}).get(_RECORDED)
    now = content(config, data, weights).get(_RECORDED)
    if recorded is None or now is None or recorded == now or not folder.has_begun(phase):
        return
    name = next(name for name in now if recorded.get(name) != now[name])
    raise errors.UsageError(
        f"{phase.name} of the run folder {folder.root} was created with other factors in "
        f"--class_weights={text_lib.printable(config.training.class_weights)}, e.g. of {name!r}: "
        f"{recorded.get(name)} (now {now[name]}). Restore the file, or give another --run=NAME."
    )


def describe(weights: np.ndarray, data: dataset_lib.Dataset) -> str:
    """The lowest and the highest factor, for a message."""
    low, high = int(np.argmin(weights)), int(np.argmax(weights))
    names = data.class_names
    return (
        f"class weights: from {weights[low]:.3g} ({names[low]!r}) to {weights[high]:.3g} "
        f"({names[high]!r})"
    )


def _balanced(data: dataset_lib.Dataset) -> np.ndarray:
    present = np.unique(data.train.labels)
    weights = np.ones(len(data.class_names), np.float32)
    weights[present] = sklearn.utils.class_weight.compute_class_weight(
        "balanced", classes=present, y=data.train.labels
    )
    return weights


def _from_file(path: pathlib.Path, data: dataset_lib.Dataset) -> np.ndarray:
    shown = f"--class_weights={text_lib.printable(str(path))}"
    factors = _read(path, shown)
    labels = {name: label for label, name in enumerate(data.class_names)}
    weights = np.ones(len(labels), np.float32)
    for name, factor in factors.items():
        if name not in labels:
            close = difflib.get_close_matches(name, labels, n=1, cutoff=0.0)
            raise errors.UsageError(
                f"{shown}: there is no class {text_lib.printable(name)!r}. The closest name is "
                f"{close[0]!r}."
            )
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not is_number or not 0 <= factor <= float(np.finfo(np.float32).max):
            raise errors.UsageError(
                f"{shown}: the factor of {name!r} is {json.dumps(factor)}: expected a number, 0 or "
                "more."
            )
        weights[labels[name]] = factor
    if not weights[np.unique(data.train.labels)].any():
        raise errors.UsageError(
            f"{shown}: all factors are 0, so nothing would be learned: give some class more."
        )
    return weights


def _read(path: pathlib.Path, shown: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise errors.UsageError(
            f"{shown} cannot be read ({error.strerror}): expected 'none', 'balanced' or a .json "
            "file."
        ) from error
    except UnicodeDecodeError as error:
        raise errors.UsageError(f"{shown} is not UTF-8 text.") from error
    try:
        factors = json.loads(text, object_pairs_hook=_without_repeated)
    except (ValueError, RecursionError) as error:
        raise errors.UsageError(f"{shown} is not valid JSON: {error}.") from error
    if not isinstance(factors, dict):
        raise errors.UsageError(f"{shown}: expected an object {{class name: factor}}.")
    return factors


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As json.loads makes an object; raises ValueError if a name is there twice."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name!r} is there twice")
        values[name] = value
    return values
