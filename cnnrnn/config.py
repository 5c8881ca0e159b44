"""The settings of a run, in groups: flags, their help, their checks and their defaults.

A setting that each phase has its own value of is a pair (phase 1, phase 2); on the command line
one value stands for both.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from absl import flags

from cnnrnn import errors

RESIZE_METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")


def cache_dir() -> pathlib.Path:
    """The folder of downloads, prepared data sets and features: $CNNRNN_CACHE if set."""
    return pathlib.Path(os.environ.get("CNNRNN_CACHE", "~/.cache/cnnrnn")).expanduser()


def _setting(
    default: Any,
    help_text: str,
    check: tuple[Callable[[Any], bool], str] | None = None,
    flag: str = "",
):
    """A setting whose flag is named like its field, unless `flag` says otherwise."""
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
    """Where the run lies on disk, its seed, its devices, its checkpoints."""

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
    """What is trained, from which weights, for how long, in which precision."""

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
        "'float16' (with loss scaling), or 'auto': bfloat16 where the processor or the GPUs "
        "support it natively, else float32. Weights, sums, statistics, the head and the loss are "
        "always float32.",
        _one_of("auto", "float32", "bfloat16", "float16"),
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
    """Which trained model is used, and what is reported of each image."""

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


# What a run's result depends on; config.json records these.
RECORDED = ("data", "run", "training")


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings, checked. `Config.of` and `replace` take flag names."""

    data: DataSettings = DataSettings()
    run: RunSettings = RunSettings()
    training: TrainingSettings = TrainingSettings()
    prediction: PredictionSettings = PredictionSettings()
    serving: ServingSettings = ServingSettings()
    verification: VerificationSettings = VerificationSettings()

    def __post_init__(self):
        for _, field, value in self._settings():
            _check(field, value)
        if self.data.archive and self.data.dataset != "tiny_imagenet_100":
            raise errors.UsageError(
                f"--archive={self.data.archive} goes with --dataset=tiny_imagenet_100, not with "
                f"--dataset={self.data.dataset}. Leave one of the two out."
            )

    @classmethod
    def of(cls, **settings: Any) -> "Config":
        """The defaults with some settings changed, by flag name."""
        return cls().replace(**settings)

    def replace(self, **settings: Any) -> "Config":
        """A copy with some settings changed, by flag name.

        Raises:
            UsageError: a value is not valid.
            TypeError: there is no such flag.
        """
        changes: dict[str, dict[str, Any]] = {}
        for group, field, _ in self._settings():
            if _flag(field) in settings:
                changes.setdefault(group, {})[field.name] = settings.pop(_flag(field))
        if settings:
            raise TypeError(f"there is no flag --{next(iter(settings))}")
        groups = {
            group: dataclasses.replace(getattr(self, group), **values)
            for group, values in changes.items()
        }
        return dataclasses.replace(self, **groups)

    @property
    def run_dir(self) -> pathlib.Path:
        """The run's folder: --run in --runs_dir, by default named after the data set."""
        name = self.run.name or _name_of(self.data.dataset)
        return pathlib.Path(self.run.runs_dir).expanduser() / name

    @property
    def model_dir(self) -> pathlib.Path:
        """The folder of --model, or the run's."""
        model = self.prediction.model
        return pathlib.Path(model).expanduser() if model else self.run_dir

    def to_flags(self) -> list[str]:
        """The settings that differ from their default, as command-line arguments."""
        return [
            f"--{_flag(field)}={_flag_text(value)}"
            for _, field, value in self._settings()
            if value != field.default
        ]

    def to_json(self) -> dict[str, Any]:
        """The settings that a run's result depends on, as JSON values by flag name."""
        return {
            _flag(field): list(value) if isinstance(value, tuple) else value
            for group, field, value in self._settings()
            if group in RECORDED
        }

    def _settings(self) -> Iterator[tuple[str, dataclasses.Field, Any]]:
        """(name of the group, field, value) of each setting."""
        for group in dataclasses.fields(self):
            settings = getattr(self, group.name)
            for field in dataclasses.fields(settings):
                yield group.name, field, getattr(settings, field.name)


def from_json(settings: dict[str, Any]) -> Config:
    """The Config that `to_json` made `settings` from; unknown settings are ignored.

    Raises:
        UsageError: a value is of another type than its setting, or not valid.
    """
    values = {}
    for _, field, default in Config()._settings():
        name = _flag(field)
        if name not in settings:
            continue
        value = tuple(settings[name]) if isinstance(settings[name], list) else settings[name]
        if not _same_type(value, default):
            raise errors.UsageError(f"{name}={settings[name]!r} is not valid.")
        values[name] = value
    return Config.of(**values)


def _same_type(value: Any, example: Any) -> bool:
    if isinstance(example, tuple):
        return (
            isinstance(value, tuple)
            and len(value) == len(example)
            and all(map(_same_type, value, example))
        )
    accepted = (int, float) if isinstance(example, float) else type(example)
    return isinstance(value, accepted) and isinstance(value, bool) == isinstance(example, bool)


def _flag(field: dataclasses.Field) -> str:
    return field.metadata["flag"] or field.name


def _flag_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
            raise errors.UsageError(f"--{_flag(field)}={item} is not valid: expected {expected}.")


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


_SCALARS = {
    bool: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag per setting; absl's name of the defining module is the group's."""
    for group, field, default in Config()._settings():
        help_text = field.metadata["help"]
        common = {"flag_values": flag_values, "module_name": group}
        if isinstance(default, tuple):
            parser, serializer = _PairParser(type(default[0])), _PairSerializer()
            flags.DEFINE(parser, _flag(field), default, help_text, serializer=serializer, **common)
        else:
            _SCALARS[type(default)](_flag(field), default, help_text, **common)


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """The Config of parsed flags.

    Raises:
        UsageError: a value is not valid.
    """
    names = (_flag(field) for _, field, _ in Config()._settings())
    return Config.of(**{name: flag_values[name].value for name in names})


def flags_help(groups: Collection[str], flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """The help text of the flags of some groups, group by group."""
    return "".join(flag_values.module_help(group) for group in groups)
