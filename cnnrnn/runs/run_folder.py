"""Run folder: the paths and records of one run.

runs/NAME/
  config.json      settings of each phase, checked when it resumes
  manifest.json    versions, devices, fingerprint of the data, hash of the weights, git commit
  split.tsv        which image is in which split, if this program split the data set
  checkpoints/     two per phase, to resume from
  best/            best weights of each phase, with their validation figures
  events/          TensorBoard
  evaluation/      report, tables, charts
  test-*/          the same for each --test_dataset, with its results.json
  export/          files that work without this program
  explanations/    images with the regions and timesteps that support each class
  train_batch_*.png  the first training images of each phase as the network sees them
  results.json     figures of the evaluation
"""

import contextlib
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from cnnrnn import config as config_lib
from cnnrnn import errors, phases, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import network as network_lib
from cnnrnn.runs import identity, run_lock
from cnnrnn.settings import paths
from cnnrnn.system import atomic_files, checksummed
from cnnrnn.system import text as text_lib

# Settings that, with the images themselves, determine the splits.
_DATA_SETTINGS = (
    "dataset",
    "train_per_class",
    "validation_per_class",
    "validation_fraction",
    "split_seed",
    "fold",
    "class_separator",
    "bad_images",
    "max_megapixels",
    "eval_image_size",
)
_LIMITS = ("bad_images", "max_megapixels")


class RunFolder:
    """Paths and records of one run.

    Args:
        root: the folder, which need not exist yet.
        evaluation: name of the folder in it that an evaluation is written to.
    """

    def __init__(self, root: pathlib.Path, evaluation: str = "evaluation"):
        self.root = root
        self._evaluation = evaluation

    def checkpoints(self, phase: phases.Phase) -> pathlib.Path:
        return self.root / "checkpoints" / phase.name

    def train_batch(self, phase: phases.Phase) -> pathlib.Path:
        return self.root / f"train_batch_{phase.name}.png"

    @property
    def best(self) -> pathlib.Path:
        return self.root / "best"

    def events(self, phase: phases.Phase, split: str) -> pathlib.Path:
        return self.root / "events" / phase.name / split

    @property
    def evaluation(self) -> pathlib.Path:
        return self.root / self._evaluation

    @property
    def results(self) -> pathlib.Path:
        """Of the validation split, or of the test images that the folder was made for."""
        folder = self.root if self._evaluation == "evaluation" else self.evaluation
        return folder / "results.json"

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Creates the folder, locks it and checks it while nothing has been computed yet.

        Raises:
            UsageError: another process uses the folder, TensorFlow cannot use its path, or
                config.json cannot be read.
            RunError: the folder cannot be written, or manifest.json is damaged.
        """
        paths.check_no_wildcards(self.root, "the run folder", "give another --runs_dir or --run")
        path = str(self.root.absolute())
        if not _is_the_same_to_tensorflow(path):
            is_utf8 = sys.getfilesystemencoding() == "utf-8"
            raise errors.UsageError(
                f"the path of the run folder {text_lib.printable(path)} is not UTF-8, which "
                "TensorFlow requires: give another --runs_dir or --run"
                f"{'' if is_utf8 else ', or, as the locale is not UTF-8 either, set PYTHONUTF8=1'}."
            )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(run_lock.held(self.root))
                stack.callback(run_lock.remove_unused, self.root)  # if the command was mistyped
                atomic_files.check_writable(self.root)
            except OSError as error:
                raise errors.RunError(
                    f"cannot write to the run folder {self.root} ({error.strerror}): give another "
                    "--runs_dir, or fix its permissions."
                ) from error
            written = ("best", "checkpoints/*", "events/*/*", "evaluation", "test-*")
            for folder in (self.root, *itertools.chain(*map(self.root.glob, written))):
                checksummed.clean_up(folder)
            self.config()
            self.manifest()
            yield

    def config(self) -> dict[str, dict[str, Any]]:
        """The content of config.json; {} for a new run.

        Raises:
            UsageError: it cannot be read.
        """
        path = self.root / "config.json"
        try:
            return _read_objects(path)
        except (OSError, ValueError) as error:
            raise errors.UsageError(
                f"{path} cannot be read ({error}): restore it from a copy, or use another run."
            ) from error

    def manifest(self) -> dict[str, dict[str, Any]]:
        """The content of manifest.json, by phase; {} if there is none.

        Raises:
            RunError: it is damaged.
        """
        path = self.root / "manifest.json"
        try:
            return _read_objects(path)
        except (OSError, ValueError) as error:
            raise errors.RunError(
                f"{path} is damaged ({error}): restore it from a copy, or delete it. Without it "
                "the report cannot name the versions that the run was created with."
            ) from error

    def has_checkpoint(self, phase: phases.Phase) -> bool:
        return any(self.checkpoints(phase).glob("[0-9]*"))

    def has_begun(self, phase: phases.Phase) -> bool:
        """Whether a phase has checkpoints or best weights."""
        return self.has_checkpoint(phase) or any(self.best.glob(f"{phase.name}.json"))

    def check(
        self, phase: phases.Phase, config: config_lib.Config, data: dataset_lib.Dataset
    ) -> None:
        """Checks that a phase that has begun can resume with these settings and images.

        Raises:
            UsageError: the run was created with other settings or images.
        """
        self.check_data(config, data)
        if not self.has_begun(phase):
            return
        recorded = self.config()
        if phase.name not in recorded:
            raise self._lacks(f"the settings of {phase.name}")
        current = identity.of(phase, config.to_json())
        with self._incomplete_config():
            before = identity.of(phase, recorded[phase.name])
        empty = "''"
        differences = [
            f"--{name}={str(before[name]) or empty} (now {str(current[name]) or empty})"
            for name in current
            # --epochs is part of one of them only, if a schedule differs, which is named as well.
            if name in before and before[name] != current[name]
        ]
        if differences:
            raise errors.UsageError(
                f"{phase.name} of the run folder {self.root} was created with "
                f"{', '.join(differences)}. Give the recorded values to resume it, or another "
                "--run=NAME to start again."
            )

    def check_data(self, config: config_lib.Config, data: dataset_lib.Dataset) -> None:
        """Checks that a config names the images of the run.

        Raises:
            UsageError: the run was created with other images, or resizes them otherwise.
        """
        if not any(self.has_begun(phase) for phase in phases.BY_NAME.values()):
            return
        by_group = self.config()
        recorded = by_group.get("data")
        if recorded is None:
            raise self._lacks("the images of the run")
        with self._incomplete_config():
            resize_method, fingerprint = recorded["resize_method"], recorded["fingerprint"]
            # Earlier versions recorded some of them with the phases only.
            first = next((by_group[name] for name in phases.BY_NAME if name in by_group), {})
            limits = {name: first[name] for name in _LIMITS if name in first}
            known = identity.ADDED | limits | recorded
            flags = " ".join(f"--{name}={known[name]}" for name in _DATA_SETTINGS)
        if resize_method != config.data.resize_method:
            raise errors.UsageError(
                f"the run folder {self.root} was created with --resize_method={resize_method}: "
                "give that, or another --run=NAME."
            )
        if fingerprint != data.fingerprint:
            raise errors.UsageError(
                f"the run folder {self.root} was created with other images (fingerprint "
                f"{fingerprint[:12]}, now {data.fingerprint[:12]}): {flags}. Give these flags and "
                "the same images to resume it, or another --run=NAME to start again."
            )

    def _lacks(self, what: str) -> errors.UsageError:
        return errors.UsageError(
            f"{self.root / 'config.json'} does not record {what}: restore it from a copy, or give "
            "another --run=NAME to start again."
        )

    def eval_image_size(self, phase: str, asked: int = 0) -> int:
        """The size of the CNN's input at which a phase is evaluated: `asked`, or that of the run.

        Args:
            phase: its name.
            asked: --eval_image_size, 0 if it was not given.
        """
        settings = identity.ADDED | self.config().get(phase, {})
        return asked or settings["eval_image_size"] or shapes.IMAGE_SIZE

    def variant(self, phase: str) -> network_lib.Variant:
        """The variant of the network that a phase was trained with; `phase` is its name."""
        return network_lib.Variant.of(self.config().get(phase, {}))

    @contextlib.contextmanager
    def _incomplete_config(self) -> Iterator[None]:
        """Turns errors of the lookup of recorded settings into UsageError."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise errors.UsageError(
                f"{self.root / 'config.json'} is incomplete or damaged ({error!r}): restore it "
                "from a copy, or give another --run=NAME."
            ) from error

    def record(
        self,
        phase: phases.Phase,
        config: config_lib.Config,
        data: dataset_lib.Dataset,
        content: dict[str, Any] | None = None,
    ) -> None:
        """Records the settings of a phase that starts or resumes, and a split made here.

        Args:
            phase: that starts or resumes.
            config: its settings.
            data: its images.
            content: of files that settings name, to be recorded beside the settings.
        """
        settings = config.to_json() | (content or {})
        recorded = self.config()
        recorded["data"] = {name: settings[name] for name in _DATA_SETTINGS} | {
            "resize_method": config.data.resize_method,
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
        }
        recorded[phase.name] = settings
        atomic_files.write_json(self.root / "config.json", recorded)
        if data.split_here:
            self._write_split(data)

    def record_end(self, phase: phases.Phase, epochs: int) -> None:
        """Records that a phase is over after `epochs`, if it was to be longer.

        Raises:
            UsageError: config.json is incomplete or damaged.
        """
        recorded = self.config()
        with self._incomplete_config():
            planned = recorded[phase.name]["epochs"]
            if epochs < planned[phase.index]:
                planned[phase.index] = epochs
                atomic_files.write_json(self.root / "config.json", recorded)

    def _write_split(self, data: dataset_lib.Dataset) -> None:
        path = self.root / "split.tsv"
        heading = f"# fingerprint {data.fingerprint}"
        if path.exists():
            with open(path, encoding="utf-8", errors="replace") as file:
                if file.readline().rstrip("\n") == heading:
                    return  # describing every example of a large data set takes long
        lines = [heading, "split\timage"]
        for name, split in (("train", data.train), ("validation", data.validation)):
            lines += [f"{name}\t{split.describe(index)}" for index in range(len(split))]
        atomic_files.write_text(path, "\n".join(lines) + "\n")

    def write_manifest(self, phase: phases.Phase, described: dict[str, Any]) -> None:
        """Records the manifest of a phase (see `manifest.describe`)."""
        atomic_files.write_json(
            self.root / "manifest.json", self.manifest() | {phase.name: described}
        )


def _is_the_same_to_tensorflow(path: str) -> bool:
    """Whether the bytes of a path are those that TensorFlow, which encodes as UTF-8, opens."""
    try:
        return os.fsencode(path) == path.encode()
    except UnicodeEncodeError:
        return False


def _read_objects(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Reads a JSON object of objects; {} if there is no file.

    Raises:
        OSError, ValueError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise ValueError("expected an object of objects")
    return value
