"""The settings: default, help text and check of each, in groups.

Settings that differ between the phases are pairs (phase 1, phase 2); on the command line, one value
sets both.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

RESIZE_METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")


def cache_dir() -> pathlib.Path:
    """The folder of downloads, prepared data sets and cached features."""
    return pathlib.Path(os.environ.get("CNNRNN_CACHE", "~/.cache/cnnrnn")).expanduser()


def _setting(
    default: Any,
    help_text: str,
    check: tuple[Callable[[Any], bool], str] | None = None,
    flag: str = "",
):
    """A field that is also a flag.

    Args:
        default: its type is the flag's type.
        help_text: of the flag.
        check: (whether a value is valid, what is expected); for pairs, of each number.
        flag: name of the flag; empty: that of the field.
    """
    metadata = {"help": help_text, "check": check, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def _one_of(*values: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in values), "one of " + ", ".join(values)


_POSITIVE = (lambda value: value >= 1), "at least 1"
_NOT_NEGATIVE = (lambda value: value >= 0), "0 or more"
_POSITIVE_REAL = (lambda value: 0 < value < math.inf), "a number above 0"
_FRACTION = (lambda value: 0 < value < 1), "a number between 0 and 1"
_SEED = (lambda value: 0 <= value < 2**31), "from 0 to 2147483647"
_NAME = (
    lambda value: value == "" or bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]*", value)),
    "a folder name of letters, digits, '.', '_', '-' and spaces (not a path: see --runs_dir)",
)
_GIVEN = (lambda value: value.strip() != ""), "not empty"


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which images, and how they are prepared."""

    dataset: str = _setting(
        "digits",
        "What to train on: 'digits' (built in), 'tiny_imagenet_100', 'tfds:NAME[/CONFIG]', or a "
        "folder of images (train/CLASS/* and val/CLASS/*, or CLASS/*, or the original "
        "tiny-imagenet layout).",
        _GIVEN,
    )
    archive: str = _setting("", "tiny_imagenet_100 only: path of the zip, if you have it already.")
    data_dir: str = _setting(
        "",
        "Folder for prepared data sets and downloads. Empty: $CNNRNN_CACHE/datasets, or "
        "~/.cache/cnnrnn/datasets.",
    )
    validation_fraction: float = _setting(
        0.1,
        "Fraction of each class held out for validation if the data set has no validation split.",
        _FRACTION,
    )
    split_seed: int = _setting(
        0, "Seed of that split and of the choice of --*_per_class images.", _SEED
    )
    train_per_class: int = _setting(
        0, "Train on this many images of each class, chosen by --split_seed. 0: all.",
        _NOT_NEGATIVE,
    )  # fmt: skip
    validation_per_class: int = _setting(
        0, "Validate on this many images of each class, chosen by --split_seed. 0: all.",
        _NOT_NEGATIVE,
    )  # fmt: skip
    bad_images: str = _setting(
        "stop",
        "What to do if images cannot be decoded, which is checked before training: 'stop', or "
        "'skip' them and list them.",
        _one_of("stop", "skip"),
    )
    max_megapixels: float = _setting(
        100.0,
        "Refuse images of more million pixels than this: decoding takes 3 bytes of memory for "
        "each pixel, and a small file can decode to gigabytes.",
        _POSITIVE_REAL,
    )
    resize_method: str = _setting(
        "bilinear",
        f"How images are resized to 299x299: {', '.join(RESIZE_METHODS)}.",
        _one_of(*RESIZE_METHODS),
    )

    @property
    def prepared_data_dir(self) -> pathlib.Path:
        return (
            pathlib.Path(self.data_dir).expanduser() if self.data_dir else cache_dir() / "datasets"
        )

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run folder, the seed, the devices and the checkpoints."""

    name: str = _setting(
        "",
        "Name of the run, a folder in --runs_dir. Empty: the data set's name.",
        _NAME,
        flag="run",
    )
    runs_dir: str = _setting("runs", "Folder of all runs.", _GIVEN)
    seed: int = _setting(0, "Seed of the initial weights and of the order of the images.", _SEED)
    logical_cpus: int = _setting(
        1,
        "Without a GPU: train on this many replicas on the CPU. Slower; for testing training on "
        "several devices.",
        _POSITIVE,
    )
    deterministic: bool = _setting(
        False,
        "On GPUs, use only operations whose results do not depend on the order in which threads "
        "finish. They are slower; without them two trainings differ, at first in the last digits. "
        "On a CPU training is deterministic in any case. verify-resume and reproduce turn it on.",
    )
    checkpoint_minutes: float = _setting(
        10.0, "Save a checkpoint at least this often, besides one after each epoch.",
        _POSITIVE_REAL,
    )  # fmt: skip
    on_save_failure: str = _setting(
        "stop",
        "If a checkpoint or the best weights cannot be written, e.g. on a full disk: 'stop', or "
        "'continue' with a warning. Earlier files stay intact in either case.",
        _one_of("stop", "continue"),
    )


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Initial weights, duration, optimizers, precision."""

    xception_weights: str = _setting(
        "imagenet",
        "Initial weights of the CNN branch: 'imagenet', 'none' (random), or a path to .h5, "
        ".weights.h5 or .keras.",
        _GIVEN,
    )
    init_from: str = _setting(
        "",
        "A run folder whose best weights the phase starts from, instead of ImageNet weights "
        "(phase 1) or this run's own phase 1 (phase 2).",
    )
    epochs: tuple[int, int] = _setting((30, 30), "Number of epochs.", _POSITIVE)
    batch_size: tuple[int, int] = _setting(
        (32, 16), "Images per step, summed over all replicas.", _POSITIVE
    )
    learning_rate: tuple[float, float] = _setting(
        (1e-3, 1e-4), "Learning rate of RMSprop (phase 1) and of Adam (phase 2).", _POSITIVE_REAL
    )
    samples_per_epoch: tuple[int, int] = _setting(
        (0, 0),
        "Images per epoch; the next epoch continues in the shuffled order where the last one "
        "ended. 0: the size of the training split.",
        _NOT_NEGATIVE,
    )
    precision: str = _setting(
        "auto",
        "Data type of the operands of matrix products and convolutions: 'float32', 'bfloat16', "
        "'float16' (with loss scaling), or 'auto': bfloat16 where the processor or all GPUs have "
        "it, float16 on GPUs of compute capability 7.x, else float32. Weights, statistics, the "
        "head and the loss are always float32.",
        _one_of("auto", "float32", "bfloat16", "float16"),
    )
    lstm_kernel: str = _setting(
        "auto",
        "Implementation of the LSTM layers: 'ours', which runs on every device, 'cudnn', or "
        "'auto': cuDNN's on GPUs, except in bfloat16, in which TensorFlow computes wrong gradients "
        "with it; else ours.",
        _one_of("auto", "ours", "cudnn"),
    )
    feature_cache: str = _setting(
        "auto",
        "Phase 1: where the frozen CNN's features are stored, so that each is computed once. "
        "'auto': $CNNRNN_CACHE/features, or ~/.cache/cnnrnn/features; 'off': nowhere; or a folder.",
        _GIVEN,
    )
    phase2_batchnorm: str = _setting(
        "train",
        "BatchNorm of the CNN in phase 2: 'train' (batch statistics, trained scale and offset) or "
        "'frozen' (inference mode, nothing trained).",
        _one_of("train", "frozen"),
    )

    @property
    def feature_cache_dir(self) -> pathlib.Path | None:
        """The folder of --feature_cache, None for 'off'."""
        if self.feature_cache == "off":
            return None
        if self.feature_cache == "auto":
            return cache_dir() / "features"
        return pathlib.Path(self.feature_cache).expanduser()


@dataclasses.dataclass(frozen=True)
class PredictionSettings:
    """Which trained model is used, and what is reported for each image."""

    model: str = _setting(
        "",
        "Folder of the run whose best weights are used. Empty: that of --run. predict and serve "
        "take an export, too.",
    )
    trust_export: bool = _setting(
        False,
        "predict and serve: load an export without checking its manifest. An export runs as a "
        "program, which can read and write your files.",
    )
    top: int = _setting(5, "Number of classes reported for each image.", _POSITIVE)
    format: str = _setting(
        "text",
        "Output of predict: 'text', 'csv', or 'jsonl' (one JSON object per line).",
        _one_of("text", "csv", "jsonl"),
    )


@dataclasses.dataclass(frozen=True)
class ServingSettings:
    """The HTTP server."""

    host: str = _setting(
        "127.0.0.1",
        "Address to listen on; the default is reachable from this machine only.",
        _GIVEN,
    )
    port: int = _setting(
        8501,
        "Port to listen on; 0: any free one.",
        ((lambda value: 0 <= value < 2**16), "from 0 to 65535"),
    )
    max_body_megabytes: float = _setting(
        20.0, "Refuse requests with a larger body.", _POSITIVE_REAL
    )


@dataclasses.dataclass(frozen=True)
class VerificationSettings:
    """The check of exact resume."""

    kills: int = _setting(5, "How often the run is killed.", _POSITIVE)
