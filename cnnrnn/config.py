"""The settings of a run: one table that is the flags, their help, their checks and their defaults.

Everything below `main` takes a `Config`. A setting that each phase has its own value of is a pair
(phase 1, phase 2); on the command line one value stands for both.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from absl import flags

from cnnrnn import errors

RESIZE_METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")


def cache_dir() -> pathlib.Path:
    """Where downloads, prepared data sets and fingerprints are kept: $CNNRNN_CACHE if set."""
    return pathlib.Path(os.environ.get("CNNRNN_CACHE", "~/.cache/cnnrnn")).expanduser()


def _setting(default: Any, help_text: str, check: tuple[Callable[[Any], bool], str] | None = None):
    return dataclasses.field(default=default, metadata={"help": help_text, "check": check})


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
class Config:
    """All settings, checked. Construct with keywords; `replace` makes a changed copy."""

    # Data
    dataset: str = _setting(
        "digits",
        "What to train on: 'digits' (built in), 'tiny_imagenet_100', 'tfds:NAME[/CONFIG]', or a "
        "folder of pictures (train/CLASS/* and val/CLASS/*, or CLASS/*, or the original "
        "tiny-imagenet layout).",
        _GIVEN,
    )
    archive: str = _setting("", "tiny_imagenet_100 only: path of the zip, if you have it already.")
    data_dir: str = _setting(
        "",
        "Where data sets are prepared and downloads kept. Empty: $CNNRNN_CACHE/datasets, or "
        "~/.cache/cnnrnn/datasets.",
    )
    validation_fraction: float = _setting(
        0.1,
        "Share of each class kept for validation where the data set has no validation split.",
        _FRACTION,
    )
    split_seed: int = _setting(
        0, "Seed of that split and of the choice of --*_per_class pictures.", _SEED
    )
    train_per_class: int = _setting(
        0, "Train on this many pictures of each class, chosen by --split_seed. 0: all.",
        _NOT_NEGATIVE,
    )  # fmt: skip
    validation_per_class: int = _setting(
        0, "Validate on this many pictures of each class, likewise. 0: all.", _NOT_NEGATIVE
    )
    bad_images: str = _setting(
        "stop",
        "What to do about pictures that cannot be trained on, which are found before anything is "
        "trained: 'stop', or 'skip' them and say so.",
        _one_of("stop", "skip"),
    )
    max_megapixels: float = _setting(
        100.0,
        "A picture of more million pixels than this is bad: it would take 3 bytes of memory for "
        "each, or be made to.",
        _POSITIVE_REAL,
    )
    resize_method: str = _setting(
        "bilinear",
        f"How a picture is brought to 299x299: {', '.join(RESIZE_METHODS)}.",
        _one_of(*RESIZE_METHODS),
    )

    # Run
    run: str = _setting(
        "", "Name of the run, a folder in --runs_dir. Empty: the data set's name.", _NAME
    )
    runs_dir: str = _setting("runs", "The folder that holds the runs.", _GIVEN)
    seed: int = _setting(0, "Seed of the initial weights and of the order of the pictures.", _SEED)
    logical_cpus: int = _setting(
        1,
        "Without a GPU: train as this many replicas on the CPU. Slower; for tests of the "
        "multi-replica path.",
        _POSITIVE,
    )
    checkpoint_minutes: float = _setting(
        10.0, "Save a checkpoint at least this often, besides one after each epoch.",
        _POSITIVE_REAL,
    )  # fmt: skip
    on_save_failure: str = _setting(
        "stop",
        "When a checkpoint or the best weights cannot be written, e.g. on a full disk: 'stop', or "
        "'continue' with a warning. What was saved before stays in either case.",
        _one_of("stop", "continue"),
    )

    # Training
    xception_weights: str = _setting(
        "imagenet",
        "Where the CNN branch starts: 'imagenet', 'none' (random), or a path to .h5, .weights.h5 "
        "or .keras.",
        _GIVEN,
    )
    init_from: str = _setting(
        "",
        "A run folder whose best weights the phase starts from, instead of ImageNet weights "
        "(phase 1) or this run's own phase 1 (phase 2).",
    )
    epochs: tuple[int, int] = _setting((30, 30), "Epochs to train.", _POSITIVE)
    batch_size: tuple[int, int] = _setting(
        (32, 16), "Pictures per step, over all replicas together.", _POSITIVE
    )
    learning_rate: tuple[float, float] = _setting(
        (1e-3, 1e-4), "Learning rate of RMSprop (phase 1) and of Adam (phase 2).", _POSITIVE_REAL
    )
    samples_per_epoch: tuple[int, int] = _setting(
        (0, 0),
        "Pictures per epoch, drawing on where the last epoch stopped. 0: as many as there are.",
        _NOT_NEGATIVE,
    )
    precision: str = _setting(
        "auto",
        "Of the operands of products: 'float32', 'bfloat16', 'float16' (with loss scaling), or "
        "'auto': bfloat16 where the processor or the GPUs have it natively, else float32. Weights, "
        "sums, statistics, the head and the loss are float32 always.",
        _one_of("auto", "float32", "bfloat16", "float16"),
    )
    feature_cache: str = _setting(
        "auto",
        "Phase 1: where the frozen CNN's features are kept, so that each is computed once. 'auto': "
        "$CNNRNN_CACHE/features, or ~/.cache/cnnrnn/features; 'off': nowhere; or a folder.",
        _GIVEN,
    )
    phase2_batchnorm: str = _setting(
        "train",
        "BatchNorm of the CNN in phase 2: 'train' (batch statistics, scale and offset trained) or "
        "'frozen' (kept as they came).",
        _one_of("train", "frozen"),
    )

    # Other commands
    model: str = _setting(
        "",
        "predict, explain, export, serve: the run, a folder, whose best weights are used. Empty: "
        "that of --run. For predict and serve it can be an export, too.",
    )
    top: int = _setting(
        5, "predict, explain, export: how many classes are named for each picture.", _POSITIVE
    )
    format: str = _setting(
        "text",
        "predict: 'text' for reading, 'csv', or 'jsonl', a JSON object a line.",
        _one_of("text", "csv", "jsonl"),
    )
    host: str = _setting(
        "127.0.0.1",
        "serve: the address to listen on; the default is for this machine alone.",
        _GIVEN,
    )
    port: int = _setting(
        8501,
        "serve: the port to listen on; 0: any that is free.",
        ((lambda value: 0 <= value < 2**16), "from 0 to 65535"),
    )
    max_body_megabytes: float = _setting(
        20.0, "serve: a request with a larger body is refused.", _POSITIVE_REAL
    )
    kills: int = _setting(5, "verify-resume: how often the run is killed.", _POSITIVE)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.archive and self.dataset != "tiny_imagenet_100":
            raise errors.UsageError(
                f"--archive={self.archive} goes with --dataset=tiny_imagenet_100, not with "
                f"--dataset={self.dataset}. Leave one of the two out."
            )

    def replace(self, **changes: Any) -> "Config":
        return dataclasses.replace(self, **changes)

    @property
    def run_dir(self) -> pathlib.Path:
        """The run's folder: --run in --runs_dir, by default named after the data set."""
        return pathlib.Path(self.runs_dir).expanduser() / (self.run or _name_of(self.dataset))

    @property
    def prepared_data_dir(self) -> pathlib.Path:
        return (
            pathlib.Path(self.data_dir).expanduser() if self.data_dir else cache_dir() / "datasets"
        )

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)

    @property
    def feature_cache_dir(self) -> pathlib.Path | None:
        """The folder of --feature_cache, None for 'off'."""
        if self.feature_cache == "off":
            return None
        if self.feature_cache == "auto":
            return cache_dir() / "features"
        return pathlib.Path(self.feature_cache).expanduser()

    def to_flags(self) -> list[str]:
        """The settings that are not at their default, as arguments of the command line."""
        return [
            f"--{field.name}={_flag_text(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, by flag name."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


def _flag_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _name_of(dataset: str) -> str:
    """A folder name for a data set: 'tfds:beans/1.0' -> 'beans-1.0', '/my/Cats/' -> 'Cats'."""
    if dataset.startswith("tfds:"):
        return re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.removeprefix("tfds:")).strip("-.")
    folder = pathlib.Path(dataset).expanduser()
    name = folder.name or folder.resolve().name
    return re.sub(r"[^A-Za-z0-9._ -]+", "-", name).strip("-. ") or "run"


def _check(field: dataclasses.Field, value: Any) -> None:
    if field.metadata["check"] is None:
        return
    accepts, expected = field.metadata["check"]
    for item in value if isinstance(value, tuple) else (value,):
        if not accepts(item):
            raise errors.UsageError(f"--{field.name}={item} is not valid: expected {expected}.")


def from_json(settings: dict[str, Any]) -> Config:
    """The Config of what `to_json` made, by this version or another.

    Settings that this version does not have are left out.
    """
    names = {field.name for field in dataclasses.fields(Config)}
    return Config(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
            if name in names
        }
    )


class _PairParser(flags.ArgumentParser):
    """Parses 'A' or 'A,B' into a pair of numbers, one for each phase."""

    def __init__(self, number: type):
        self._number = number
        self.syntactic_help = "one number for both phases, or PHASE1,PHASE2"

    def parse(self, argument):
        if isinstance(argument, tuple):
            return argument
        try:
            numbers = [self._number(part) for part in str(argument).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            kind = "whole number" if self._number is int else "number"
            raise ValueError(f"expected a {kind}, or two separated by a comma")
        return (numbers[0], numbers[-1])

    def flag_type(self):
        return f"{self._number.__name__} or pair"


class _PairSerializer(flags.ArgumentSerializer):
    def serialize(self, value):
        return _flag_text(value)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag per setting."""
    for field in dataclasses.fields(Config):
        help_text = field.metadata["help"]
        common = {"help": help_text, "flag_values": flag_values, "module_name": "cnnrnn"}
        if isinstance(field.default, tuple):
            parser = _PairParser(type(field.default[0]))
            flags.DEFINE(parser, field.name, field.default, serializer=_PairSerializer(), **common)
        else:
            define = {
                str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float
            }[type(field.default)]  # fmt: skip
            define(
                field.name,
                field.default,
                help_text,
                flag_values=flag_values,
                module_name="cnnrnn",
            )


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """The Config of parsed flags.

    Raises:
        UsageError: a value that fails its check.
    """
    return Config(**{f.name: flag_values[f.name].value for f in dataclasses.fields(Config)})
