"""`check-gpu`: checks of training on this machine's GPUs. A table, and a file to send back.

Each check runs in a process of its own, so that one that fails ends none of the others. This
process does not import TensorFlow: it would take memory of the GPUs.
"""

import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.gpu_check import command_line
from cnnrnn.gpu_check import measurement as measurement_lib
from cnnrnn.settings import paths
from cnnrnn.system import atomic_files, child_process, progress
from cnnrnn.training import cost

PRECISIONS = ("float32", "bfloat16", "float16")
# Relative, of two numbers of devices in float32: of the first loss, and of that after an update,
# which Adam's first step amplifies. On two logical CPUs 2e-6 and 1.3e-4 were measured.
_LOSS_TOLERANCES = (1e-4, 2e-3)
_PRECISION_TOLERANCE = 2e-2  # relative, of a precision against float32; 1e-3 on a CPU
_LIMIT_SECONDS = 30 * 60  # of a measurement; devices that wait for one another would never end
Measure = Callable[..., measurement_lib.Measurement]


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: of the check, as on the command line.
        verdict: "PASS", "FAIL", or "SKIP" if it does not apply to this machine.
        text: figures, or what failed.
        seconds: it took.
        figures: for the file, JSON.
    """

    name: str
    verdict: str
    text: str
    seconds: float
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verdict}  {self.name:<20}  {self.text}"


class _SkippedError(Exception):
    """A check does not apply to this machine."""


class Checks:
    """The checks, in order; see `names`.

    Args:
        config: names the images and the devices.
        program: the command line of the checks that run commands.
        measure: `measurement.measure` or a replacement; a function of a module.
    """

    def __init__(self, config: config_lib.Config, program: command_line.Program, measure: Measure):
        self._config, self._measure = config, measure
        self._losses: dict[tuple[str, str], np.ndarray] = {}  # by phase and precision
        self._checks: dict[str, Callable[[], measurement_lib.Measurement]] = {
            "lstm-kernels": lambda: self._measured("lstm_kernels", config),
        }
        for phase in cost.PHASES:
            for precision in PRECISIONS:
                self._checks[f"{phase}-{precision}"] = self._training_steps(phase, precision)
        self._checks |= {
            "images": lambda: self._measured("input_images", config),
            "replicas": self._replicas,
            "determinism": self._determinism,
            "export": lambda: command_line.export(program, self._whole_shares()),
            "resume": lambda: command_line.resume(program, config),
        }

    @property
    def names(self) -> list[str]:
        return list(self._checks)

    @functools.cached_property
    def devices(self) -> measurement_lib.Measurement:
        """The devices and the software; "devices" of its figures is their number."""
        return self._measured("installation", self._config)

    def run(self, name: str) -> Result:
        """Runs one check; whatever happens in it is its result."""
        start = time.monotonic()
        try:
            found = self._checks[name]()
        except _SkippedError as skipped:
            return Result(name, "SKIP", str(skipped), time.monotonic() - start)
        except errors.Stopped:
            raise
        except Exception as failed:
            return Result(name, "FAIL", str(failed) or repr(failed), time.monotonic() - start)
        verdict = "PASS" if found.passed else "FAIL"
        return Result(name, verdict, found.text, time.monotonic() - start, found.figures)

    def _measured(
        self, name: str, config: config_lib.Config, *arguments: Any
    ) -> measurement_lib.Measurement:
        ended = child_process.call(
            self._measure, name, config, *arguments, limit_seconds=_LIMIT_SECONDS
        )
        if isinstance(ended.answer, measurement_lib.Measurement):
            return ended.answer
        if isinstance(ended.answer, errors.UsageError):
            raise ended.answer
        if isinstance(ended.answer, MemoryError):
            raise errors.RunError(f"out of memory: {ended.answer}")
        raise errors.RunError(ended.how if ended.answer is None else str(ended.answer))

    def _training_steps(
        self, phase: str, precision: str
    ) -> Callable[[], measurement_lib.Measurement]:
        """The check of a phase in a precision. Its losses must be near those of float32.

        Those after the first depend on the gradients, too.
        """

        def check() -> measurement_lib.Measurement:
            config = self._config.replace(precision=precision)
            found = self._measured("training_steps", config, phase)
            losses = self._losses[phase, precision] = np.array(found.figures["losses"])
            reference = self._losses.get((phase, "float32"))
            if reference is None:
                text = f"{found.text}; not compared with {phase}-float32, which has no result"
                return dataclasses.replace(found, text=text)
            if not np.max(np.abs(losses - reference) / reference) <= _PRECISION_TOLERANCE:
                raise errors.RunError(
                    f"{found.text}, and the losses of the first steps are {_shown(losses)} "
                    f"instead of {_shown(reference)} in float32"
                )
            return found

        return check

    def _replicas(self) -> measurement_lib.Measurement:
        """The losses of all devices together must be those of one."""
        count = self.devices.figures["devices"]
        if count == 1:
            raise _SkippedError("there is one device only")
        config = self._whole_shares()
        one, together = (
            self._measured("replicas", config, only_first) for only_first in (True, False)
        )
        before, now = (
            np.array([found.figures["losses"][phase] for phase in cost.PHASES])
            for found in (one, together)
        )
        # By step. Of NaN the maximum is NaN, which passes no comparison.
        first, second = np.max(np.abs(now - before) / before, axis=0).tolist()
        return measurement_lib.Measurement(
            first <= _LOSS_TOLERANCES[0] and second <= _LOSS_TOLERANCES[1],
            f"losses of 1 and of {count} devices differ by up to {first:.1e} (relative), and by "
            f"{second:.1e} after an update",
            {"one": one.figures, "all": together.figures},
        )

    def _whole_shares(self) -> config_lib.Config:
        """The settings with batch sizes rounded up to multiples of the number of devices."""
        count = self.devices.figures["devices"]
        sizes = tuple(cost.shared_evenly(s, count) for s in self._config.training.batch_size)
        return self._config.replace(batch_size=sizes)

    def _determinism(self) -> measurement_lib.Measurement:
        """Two processes must train the same with --deterministic; without, it is only reported."""
        figures = {}
        for name, flag in (("with --deterministic", True), ("without it", False)):
            config = self._config.replace(deterministic=flag)
            first, second = (self._measured("determinism", config).figures for _ in range(2))
            figures[name] = {
                precision: "identical" if digest == second[precision] else "different"
                for precision, digest in first.items()
            }
        verdicts = [
            f"{verdict} {name} in {precision}"
            for name, found in figures.items()
            for precision, verdict in found.items()
        ]
        return measurement_lib.Measurement(
            set(figures["with --deterministic"].values()) == {"identical"},
            f"two training runs are {', '.join(verdicts)}",
            figures,
        )


def run(
    arguments: Sequence[str],
    config: config_lib.Config,
    program: Sequence[str] = child_process.PROGRAM,
    measure: Measure = measurement_lib.measure,
) -> None:
    """Runs the checks, prints a table and writes it to check-gpu.txt and .json in --runs_dir.

    Args:
        arguments: names of checks; none: all.
        config: names the images, and --logical_cpus. Of the training options, those of the recipe
            are used instead.
        program: the command line of the checks that run commands, up to the command word.
        measure: makes a measurement in a child process.

    Raises:
        UsageError: there is no GPU and no --logical_cpus, or no such check.
        RunError: a check failed.
    """
    config = _recipe(config)
    with tempfile.TemporaryDirectory(prefix="cnnrnn-check-gpu-") as folder:
        commands = command_line.Program(program, pathlib.Path(folder))
        checks = Checks(config, commands, measure)
        unknown = sorted(set(arguments) - set(checks.names))
        if unknown:
            raise errors.UsageError(
                f"there is no check {unknown[0]!r}: expected some of {', '.join(checks.names)}."
            )
        try:
            devices = checks.devices
        except errors.RunError as failed:
            raise errors.RunError(f"TensorFlow cannot list the devices: {failed}") from failed
        if not devices.passed:
            raise errors.UsageError(
                f"{devices.text} --logical_cpus=2 runs the same checks on the CPU."
            )
        logging.info(f"check-gpu: {devices.text}")
        todo = [name for name in checks.names if name in (arguments or checks.names)]
        results = []
        for number, name in enumerate(todo, 1):
            logging.info(f"check {number} of {len(todo)}: {name} ...")
            results.append(checks.run(name))
            took = progress.duration(results[-1].seconds)
            logging.info(f"  {results[-1]}  ({took})")
            _write(config, devices, results)
    failed = [result.name for result in results if result.verdict == "FAIL"]
    print(f"\n{_table(devices, results)}")
    if failed:
        raise errors.RunError(f"{len(failed)} of {len(todo)} checks failed: {', '.join(failed)}.")


def _recipe(config: config_lib.Config) -> config_lib.Config:
    """The settings without options of network and training: the recipe is what is measured."""
    defaults = config_lib.Config()
    config = config.replace(
        xception_weights="none",  # random ones need no download
        **{
            name: getattr(defaults.training, name)
            for name in (
                *("cnn_image_size", "cached_views", "sampling", "class_weights"),
                *("init_from", "rnn_weights"),
            )
        },
    )
    return dataclasses.replace(
        config,
        **{
            name: getattr(defaults, name)
            for name in ("network", "augmentation", "optimization", "finetuning")
        },
    )


def _shown(losses: np.ndarray) -> str:
    return ", ".join(f"{loss:.4f}" for loss in losses)


def _table(devices: measurement_lib.Measurement, results: Sequence[Result]) -> str:
    return "\n".join([devices.text, *map(str, results)]) + "\n"


def _write(
    config: config_lib.Config, devices: measurement_lib.Measurement, results: Sequence[Result]
) -> None:
    """Writes what is known so far, so that a check that never ends loses nothing."""
    path = paths.expanded(config.run.runs_dir) / "check-gpu"
    record = {
        "devices": devices.figures,
        "results": [dataclasses.asdict(result) for result in results],
    }
    try:
        atomic_files.write_json(path.with_suffix(".json"), record)
        atomic_files.write_text(path.with_suffix(".txt"), _table(devices, results))
    except OSError as error:
        raise errors.RunError(f"cannot write {path}.json: {error.strerror}") from error
