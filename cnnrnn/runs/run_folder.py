"""A run's folder: where each thing lies, which settings made it, and what it was made with.

runs/NAME/
  config.json      the settings of each phase, checked when a phase goes on
  manifest.json    versions, devices, data fingerprint, weights' hash, git commit
  split.tsv        which image is in which split, where the split was made here
  checkpoints/     what a phase goes on from
  best/            the best weights of each phase, and their validation figures
  events/          TensorBoard
  evaluation/      the report, its tables and charts
  export/          files that work without this program
  explanations/    images of where each branch found the classes
  results.json     the figures of the evaluation
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.runs import run_lock
from cnnrnn.system import atomic_files, checksummed

# What decides which images a run has, beside the images themselves.
_DATA_SETTINGS = (
    "dataset",
    "train_per_class",
    "validation_per_class",
    "validation_fraction",
    "split_seed",
)


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, root: pathlib.Path):
        self.root = root

    def checkpoints(self, phase: phases.Phase) -> pathlib.Path:
        return self.root / "checkpoints" / phase.name

    @property
    def best(self) -> pathlib.Path:
        return self.root / "best"

    def events(self, phase: phases.Phase, split: str) -> pathlib.Path:
        return self.root / "events" / phase.name / split

    @property
    def evaluation(self) -> pathlib.Path:
        return self.root / "evaluation"

    @property
    def results(self) -> pathlib.Path:
        return self.root / "results.json"

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder and keeps it to this process while the block runs.

        Raises:
            UsageError: another process uses it, or see `create`.
            RunError: see `create`.
        """
        self.create()
        with run_lock.held(self.root):
            for folder in (self.root, self.best, *self.root.glob("checkpoints/*")):
                checksummed.clean_up(folder)
            try:
                yield
            finally:
                run_lock.forget(self.root)  # a mistyped command leaves nothing behind

    def create(self) -> None:
        """Makes the folder and finds out now, and not after an epoch, whether it can be written.

        Raises:
            UsageError: TensorFlow could not find its checkpoints again in a folder so named.
            RunError: it cannot be written.
        """
        if set("*?[]") & set(str(self.root.absolute())):
            raise errors.UsageError(
                f"the run folder {self.root.absolute()} has one of * ? [ ] in its path, which "
                "TensorFlow takes for wildcards: give another --runs_dir or --run."
            )
        try:
            atomic_files.write_text(self.root / ".writable", "")
            (self.root / ".writable").unlink()
        except OSError as error:
            raise errors.RunError(
                f"cannot write to the run folder {self.root} ({error.strerror}): give another "
                "--runs_dir, or mend its permissions."
            ) from error

    def manifest(self) -> dict[str, Any]:
        path = self.root / "manifest.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def config(self) -> dict[str, Any]:
        """What config.json holds: {} for a new run.

        Raises:
            UsageError: it cannot be read.
        """
        path = self.root / "config.json"
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(recorded, dict):
                raise ValueError("not an object")
            return recorded
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise errors.UsageError(
                f"{path} cannot be read ({error}): give another --run, or remove the folder."
            ) from error

    def has_begun(self, phase: phases.Phase) -> bool:
        """Whether a phase has left anything to go on from, or to lose."""
        return any(self.checkpoints(phase).glob("[0-9]*")) or any(
            self.best.glob(f"{phase.name}.json")
        )

    def check(
        self, phase: phases.Phase, config: config_lib.Config, data: dataset_lib.Dataset
    ) -> None:
        """Compares a phase that has begun with the settings that are to go on with it.

        Raises:
            UsageError: the run was made with other settings or other images.
        """
        recorded = self.config()
        if any(self.has_begun(other) for other in phases.BY_NAME.values()):
            self.check_data(config, data)
        if not self.has_begun(phase) or phase.name not in recorded:
            return
        before, now = _identity(phase, recorded[phase.name]), _identity(phase, config.to_json())
        differences = [
            f"--{name}={_shown(before[name])} (now {_shown(now[name])})"
            for name in now
            if before[name] != now[name]
        ]
        if differences:
            raise errors.UsageError(
                f"{phase.name} of the run folder {self.root} was made with "
                f"{', '.join(differences)}. Give the recorded values to go on with it, or another "
                "--run=NAME to start afresh."
            )

    def check_data(self, config: config_lib.Config, data: dataset_lib.Dataset) -> None:
        """Raises UsageError unless a config's data is that of the run."""
        recorded = self.config()
        made_with = recorded.get("data")
        if made_with is None:
            return
        if made_with["resize_method"] != config.data.resize_method:
            raise errors.UsageError(
                f"the run folder {self.root} was made with --resize_method="
                f"{made_with['resize_method']}: give that, or another --run=NAME."
            )
        if made_with["fingerprint"] != data.fingerprint:
            given = " ".join(f"--{name}={made_with[name]}" for name in _DATA_SETTINGS)
            raise errors.UsageError(
                f"the run folder {self.root} was made with other images (fingerprint "
                f"{made_with['fingerprint'][:12]}, now {data.fingerprint[:12]}): "
                f"{given}. Give these and the same images to go on with it, or another "
                "--run=NAME to start afresh."
            )

    def record(
        self, phase: phases.Phase, config: config_lib.Config, data: dataset_lib.Dataset
    ) -> None:
        """Writes down the settings of a phase that begins or goes on."""
        settings = config.to_json()
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

    def _write_split(self, data: dataset_lib.Dataset) -> None:
        path = self.root / "split.tsv"
        heading = f"# fingerprint {data.fingerprint}"
        if path.exists() and path.read_text(encoding="utf-8").startswith(heading):
            return  # naming every example of a large set takes its time
        lines = [heading, "split\timage"]
        for name, split in (("train", data.train), ("validation", data.validation)):
            lines += [f"{name}\t{split.describe(row)}" for row in range(len(split))]
        text = "\n".join(lines) + "\n"
        atomic_files.write_text(
            path, text.encode("utf-8", "surrogateescape").decode(errors="replace")
        )

    def write_manifest(self, phase: phases.Phase, described: dict[str, Any]) -> None:
        """Notes what a phase is made with; see `manifest`."""
        atomic_files.write_json(
            self.root / "manifest.json", self.manifest() | {phase.name: described}
        )


def _identity(phase: phases.Phase, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what a phase computes; those that may change are left out."""
    shared = ("seed", "init_from", "precision")
    own = ("phase2_batchnorm",) if phase.train_cnn else ("xception_weights",)
    pairs = ("batch_size", "learning_rate", "samples_per_epoch")
    # A setting that an older version did not have stood, in effect, at its default, and the
    # precision was float32.
    settings = config_lib.Config.of(precision="float32").to_json() | settings
    return {name: settings[name] for name in (*shared, *own)} | {
        name: settings[name][phase.index] for name in pairs
    }


def _shown(value: Any) -> str:
    return "''" if value == "" else str(value)
