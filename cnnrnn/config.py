"""`Config`: all settings of a command, and the flags that set them."""

import dataclasses
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any

from absl import flags

from cnnrnn import errors
from cnnrnn.settings import ablation as ablation_settings
from cnnrnn.settings import augmentation as augmentation_settings
from cnnrnn.settings import averaging as averaging_settings
from cnnrnn.settings import cluster as cluster_settings
from cnnrnn.settings import data as data_settings
from cnnrnn.settings import evaluation as evaluation_settings
from cnnrnn.settings import fields, paths
from cnnrnn.settings import finetuning as finetuning_settings
from cnnrnn.settings import network as network_settings
from cnnrnn.settings import optimization as optimization_settings
from cnnrnn.settings import prediction as prediction_settings
from cnnrnn.settings import rate_search as rate_search_settings
from cnnrnn.settings import run as run_settings
from cnnrnn.settings import serving as serving_settings
from cnnrnn.settings import training as training_settings
from cnnrnn.settings import verification as verification_settings

_LONGEST_NAME = 100  # bytes of a run that is named after its data set
# The groups that the result of a run depends on; config.json records them.
RECORDED = (
    "data",
    "run",
    "network",
    "training",
    "augmentation",
    "optimization",
    "finetuning",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings.

    Raises:
        UsageError: a value is not valid.
    """

    data: data_settings.DataSettings = data_settings.DataSettings()
    run: run_settings.RunSettings = run_settings.RunSettings()
    network: network_settings.NetworkSettings = network_settings.NetworkSettings()
    training: training_settings.TrainingSettings = training_settings.TrainingSettings()
    augmentation: augmentation_settings.AugmentationSettings = (
        augmentation_settings.AugmentationSettings()
    )
    optimization: optimization_settings.OptimizationSettings = (
        optimization_settings.OptimizationSettings()
    )
    finetuning: finetuning_settings.FinetuningSettings = finetuning_settings.FinetuningSettings()
    prediction: prediction_settings.PredictionSettings = prediction_settings.PredictionSettings()
    serving: serving_settings.ServingSettings = serving_settings.ServingSettings()
    verification: verification_settings.VerificationSettings = (
        verification_settings.VerificationSettings()
    )
    rate_search: rate_search_settings.RateSearchSettings = rate_search_settings.RateSearchSettings()
    averaging: averaging_settings.AveragingSettings = averaging_settings.AveragingSettings()
    ablation: ablation_settings.AblationSettings = ablation_settings.AblationSettings()
    evaluation: evaluation_settings.EvaluationSettings = evaluation_settings.EvaluationSettings()
    cluster: cluster_settings.ClusterSettings = cluster_settings.ClusterSettings()

    def __post_init__(self):
        for _, field, value in self._settings():
            _check(field, value)
        self._check_combinations()

    @classmethod
    def of(cls, **settings: Any) -> "Config":
        """The defaults, with some settings changed by flag name."""
        return cls().replace(**settings)

    def replace(self, **settings: Any) -> "Config":
        """A copy with some settings changed by flag name.

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
        """The run folder: --run in --runs_dir, by default named after the data set."""
        name = self.run.name or _name_of(self.data)
        return paths.expanded(self.run.runs_dir) / name

    @property
    def evaluation_name(self) -> str:
        """The folder of an evaluation in the run folder: of --test_dataset, test-NAME."""
        test_dataset = self.evaluation.test_dataset
        if not test_dataset:
            return "evaluation"
        return f"test-{_name_of(dataclasses.replace(self.data, dataset=test_dataset))}"

    @property
    def model_dir(self) -> pathlib.Path:
        """The folder of --model, by default the run folder."""
        model = self.prediction.model
        return paths.expanded(model) if model else self.run_dir

    def to_flags(self) -> list[str]:
        """The settings that differ from their default, as command-line arguments."""
        return [
            f"--{_flag(field)}={_flag_text(value)}"
            for _, field, value in self._settings()
            if value != field.default
        ]

    def to_json(self) -> dict[str, Any]:
        """The settings that the result of a run depends on, as JSON values by flag name."""
        return {
            _flag(field): list(value) if isinstance(value, tuple) else value
            for group, field, value in self._settings()
            if group in RECORDED
        }

    def _check_combinations(self) -> None:
        """Raises UsageError for settings that contradict each other."""
        if self.data.archive and self.data.dataset != "tiny_imagenet_100":
            raise errors.UsageError(
                f"--archive={self.data.archive} needs --dataset=tiny_imagenet_100. "
                f"Received: --dataset={self.data.dataset}."
            )
        if self.training.rnn_weights and self.network.fusion in network_settings.WITHOUT_RNN:
            raise errors.UsageError(
                f"--rnn_weights={self.training.rnn_weights} has no effect with "
                f"--fusion={self.network.fusion}, which leaves out the RNN."
            )
        mixes = self.augmentation.mixup or self.augmentation.cutmix
        views = self.training.cached_views
        if views and self.augmentation.augmentation == "none":
            raise errors.UsageError(
                f"--cached_views={views} needs --augmentation=flip, standard or strong."
            )
        if views and mixes:
            raise errors.UsageError(
                f"--cached_views={views} cannot be combined with --mixup and --cutmix: the "
                "features of mixed images cannot be cached."
            )
        for schedule, epochs in zip(
            self.optimization.schedule, self.optimization.warmup_epochs, strict=True
        ):
            if schedule == "onecycle" and epochs:
                raise errors.UsageError(
                    f"--warmup_epochs={epochs} cannot be combined with --schedule=onecycle, which "
                    "has a warm-up of its own: give 0 for that phase, e.g. --warmup_epochs=1,0."
                )
        if mixes and 1 in self.training.batch_size:
            raise errors.UsageError(
                "--mixup and --cutmix mix the images of a batch, so they need a --batch_size of at "
                "least 2."
            )
        for name, value, optimizer in (
            ("weight_decay", self.optimization.weight_decay, "adamw"),
            ("momentum", self.optimization.momentum, "sgd"),
        ):
            default = getattr(optimization_settings.OptimizationSettings, name)
            if value != default and optimizer not in self.optimization.optimizer:
                raise errors.UsageError(
                    f"--{name}={value:g} has no effect without --optimizer={optimizer}."
                )

    def _settings(self) -> Iterator[tuple[str, dataclasses.Field, Any]]:
        """Yields (name of the group, field, value) of each setting."""
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


def _name_of(data: data_settings.DataSettings) -> str:
    """A folder name for a data set.

    'tfds:beans/1.0' -> 'beans-1.0', '/my/Cats/' -> 'Cats', '/a,/b' -> 'a+b', 'x.csv' -> 'x'.
    """
    if data.dataset.startswith("tfds:"):
        return re.sub(r"[^A-Za-z0-9._-]+", "-", data.dataset.removeprefix("tfds:")).strip("-.")
    if data.table is not None:
        names = [data.table.stem]
    else:
        names = [folder.name or folder.resolve().name for folder in data.locations]
    names = [_safe(name) for name in names]
    joined = "+".join(name for name in names if name).encode()[:_LONGEST_NAME]
    return joined.decode(errors="ignore") or "run"


def _safe(name: str) -> str:
    """A name without characters that `fields.NAME` refuses.

    Of Latin names only the letters A to Z are kept, as earlier versions did.
    """
    latin = re.sub(r"[^A-Za-z0-9._ -]+", "-", name).strip("-. ")
    if name.isascii() or re.search("[A-Za-z]", latin):
        return latin
    kept = "".join(c if fields.is_in_name(c) and c != "+" else "/" for c in name)
    return re.sub("/+", "-", kept).strip("-. ")


def _check(field: dataclasses.Field, value: Any) -> None:
    if field.metadata["check"] is None:
        return
    accepts, expected = field.metadata["check"]
    for item in value if isinstance(value, tuple) else (value,):
        if not accepts(item):
            raise errors.UsageError(f"--{_flag(field)}={item} is not valid: expected {expected}.")


class _PairParser(flags.ArgumentParser):
    """Parses 'A' or 'A,B' into a pair of values, one for each phase."""

    def __init__(self, kind: type):
        self._kind = kind
        self.syntactic_help = "one value for both phases, or PHASE1,PHASE2"

    def parse(self, argument):
        if isinstance(argument, tuple):
            return argument
        try:
            values = [self._kind(part) for part in str(argument).split(",")]
        except ValueError:
            values = []
        if len(values) not in (1, 2):
            kind = {int: "whole number", float: "number", str: "word"}[self._kind]
            raise ValueError(f"expected a {kind}, or two separated by a comma")
        return (values[0], values[-1])

    def flag_type(self):
        return f"{self._kind.__name__} or pair"


class _PairSerializer(flags.ArgumentSerializer):
    def serialize(self, value):
        return _flag_text(value)


_SCALARS = {
    bool: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
}


def define_flags(flag_values: flags.FlagValues | None = None) -> None:
    """Defines a flag for each setting, under its group as absl's name of the defining module.

    Args:
        flag_values: absl's, by default the global ones; so for the functions below.
    """
    flag_values = _or_global(flag_values)
    for group, field, default in Config()._settings():
        help_text = field.metadata["help"]
        common = {"flag_values": flag_values, "module_name": group}
        if isinstance(default, tuple):
            parser, serializer = _PairParser(type(default[0])), _PairSerializer()
            flags.DEFINE(parser, _flag(field), default, help_text, serializer=serializer, **common)
        else:
            _SCALARS[type(default)](_flag(field), default, help_text, **common)


def from_flags(flag_values: flags.FlagValues | None = None) -> Config:
    """The Config of parsed flags.

    Raises:
        UsageError: a value is not valid.
    """
    flag_values = _or_global(flag_values)
    names = (_flag(field) for _, field, _ in Config()._settings())
    return Config.of(**{name: flag_values[name].value for name in names})


def flags_help(groups: Collection[str], flag_values: flags.FlagValues | None = None) -> str:
    """The help text of the flags of some groups, group by group."""
    return "".join(_or_global(flag_values).module_help(group) for group in groups)


def _or_global(flag_values: flags.FlagValues | None) -> flags.FlagValues:
    return flags.FLAGS if flag_values is None else flag_values
