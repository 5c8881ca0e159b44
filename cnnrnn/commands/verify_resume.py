"""`verify-resume`: compares a run killed at random moments with an uninterrupted one, bit by bit.

Both are the whole recipe shortened to a few steps at full size. One runs without interruption; the
other is killed (SIGKILL) at random moments and started again with the same command each time. Then
everything that a run's result depends on is compared.

With --workers, each run has several workers, and one of them is killed; the others must then end.
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import cluster
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.runs import best_weights, event_files, run_folder
from cnnrnn.system import atomic_files, checksummed, child_process, progress, stop_signals
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import cost

_IMAGES = 64  # in training, or one of each class
_BATCH_SIZE = (16, 4)  # of each phase, rounded up to equal parts, and at most all images
_WARMUP_EPOCHS = 0.5  # at most, of two epochs
_KILLS_PER_RUN = 5  # on average; the rest of --kills takes further runs
_KILLS_DURING_START = 0.2  # the fraction of kills before training starts
_POLL_SECONDS = 0.1
_SIGNAL_SECONDS = 5.0  # in which `cluster` obeys a signal
_END_SECONDS = 60.0  # in which all workers end once one has been killed
_BYTES = 6e9  # on disk, of a run with both phases while it trains
# Curves that differ from run to run.
_TIMINGS = ("images_per_second", "waiting_for_input", "minutes", "cpu_minutes")
Digests = dict[str, str]  # name of a part of a run -> SHA-256


def run(
    arguments: Sequence[str],
    config: config_lib.Config,
    program: Sequence[str] = child_process.PROGRAM,
) -> None:
    """Runs the comparison and prints the verdict.

    Args:
        arguments: none.
        config: names the data set, and --kills.
        program: the command line of the child processes, up to the command word.

    Raises:
        RunError: the two runs differ, one of them failed, or the disk is too small.
    """
    labels = dataset_lib.load(config).train.labels
    rng = random.Random(config.run.seed)
    with tempfile.TemporaryDirectory(prefix="cnnrnn-verify-resume-") as folder:
        atomic_files.check_free_space(
            pathlib.Path(folder), _BYTES, "verify-resume",
            "make room, or choose another folder with TMPDIR.",
        )  # fmt: skip
        short = _shortened(config, np.bincount(labels).tolist())
        logging.info(
            "running both phases without interruption: a few steps at full size, several minutes"
        )
        uninterrupted = ShortRun(pathlib.Path(folder, "uninterrupted"), short, tuple(program))
        durations = uninterrupted.run()
        expected = uninterrupted.digests()
        shutil.rmtree(uninterrupted.folder)
        logging.info(f"uninterrupted run: {progress.duration(durations.total)}")
        kills, runs = 0, 0
        while kills < config.verification.kills:
            logging.info(f"run with kills, {kills} of {config.verification.kills} so far")
            killed = ShortRun(pathlib.Path(folder, "killed"), short, tuple(program))
            kills += killed.run_with_kills(config.verification.kills - kills, durations, rng)
            runs += 1
            _compare(expected, killed.digests())
            shutil.rmtree(killed.folder)
    logging.info(
        f"verdict: killed {kills} times in {runs} run(s) of both phases; everything above is "
        "identical, bit for bit, to the uninterrupted run"
    )


@dataclasses.dataclass(frozen=True)
class Durations:
    """Seconds that a run takes until it trains, and in total."""

    start: float
    total: float


@dataclasses.dataclass(frozen=True)
class ShortRun:
    """A run of the shortened recipe, in child processes.

    Attributes:
        folder: holds the run, its feature cache and its log.
        config: the shortened recipe.
        program: the command line up to the command word.
    """

    folder: pathlib.Path
    config: config_lib.Config
    program: tuple[str, ...]

    def run(self) -> Durations:
        """Runs the recipe without interruption."""
        began = time.monotonic()
        with self._started() as process:
            self._wait_for_training(process)
            start = time.monotonic() - began
            self._check_exit_code(process.wait())
        return Durations(start, time.monotonic() - began)

    def run_with_kills(self, most: int, durations: Durations, rng: random.Random) -> int:
        """Runs the recipe and kills it repeatedly.

        Args:
            most: how often it is killed at most.
            durations: of the uninterrupted run.
            rng: chooses the moments.

        Returns:
            How often it was killed before it was complete.
        """
        most = min(most, 2 * _KILLS_PER_RUN)
        for kills in range(most):
            code, seconds = self._run_and_kill(durations, rng)
            if code is not None:
                self._check_exit_code(code)
                return kills
            logging.info(f"killed after {seconds:.1f} s, at: {self._last_line()}")
        with self._started() as process:
            self._check_exit_code(process.wait())
        return most

    def digests(self) -> Digests:
        """The digest of each part of the run that a kill must not change."""
        folder = run_folder.RunFolder(self._root)
        parts = {"results": checksummed.file_digest(folder.results)}
        for phase in phases.BY_NAME.values():
            best = best_weights.find(folder.best, phase)
            figures = repr((best.epoch, best.validation))
            parts[f"{phase.name} best weights"] = checksummed.file_digest(best.weights)
            parts[f"{phase.name} best figures"] = _digest(figures.encode())
            last = max(folder.checkpoints(phase).glob("[0-9]*"))
            parts |= {f"{phase.name} {part}": d for part, d in _checkpoint_digests(last).items()}
            for split in ("train", "validation"):
                points = event_files.scalars(folder.events(phase, split))
                points = [point for point in points if point[0] not in _TIMINGS]
                parts[f"{phase.name} curves, {split}"] = _digest(repr(points).encode())
        return parts

    @property
    def _root(self) -> pathlib.Path:
        return self.folder / "run"

    @property
    def _log(self) -> pathlib.Path:
        return self.folder / "log.txt"

    def _run_and_kill(self, durations: Durations, rng: random.Random) -> tuple[int | None, float]:
        """Starts the recipe and kills it at a random moment.

        Returns:
            The exit code, None if it was killed; the seconds until then.
        """
        longest = 2 * (durations.total - durations.start) / (_KILLS_PER_RUN + 1)
        began = time.monotonic()
        with self._started() as process:
            if rng.random() < _KILLS_DURING_START:
                timeout = rng.uniform(0, durations.start)
            else:
                self._wait_for_training(process)
                timeout = rng.uniform(0, longest)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
            seconds = time.monotonic() - began
            if process.returncode is None and self.config.cluster.workers > 1:
                self._kill_worker(process, rng)
                return None, seconds
            return process.returncode, seconds

    def _kill_worker(self, process: subprocess.Popen, rng: random.Random) -> None:
        """Kills one worker; raises RunError if the others do not end."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        listed = [line for line in lines if line.startswith(cluster.PROCESSES)]
        if not listed:  # the program has only just started
            return
        workers = list(map(int, listed[-1].removeprefix(cluster.PROCESSES).split()))
        killed = rng.randrange(len(workers))
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[killed], signal.SIGKILL)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise errors.RunError(
                f"worker {killed} was killed, and the others still run after "
                f"{progress.duration(_END_SECONDS)}; the last message is: {self._last_line()}"
            ) from None
        logging.info(f"worker {killed} killed, the others ended")

    @contextlib.contextmanager
    def _started(self) -> Iterator[subprocess.Popen]:
        """Runs the recipe during the block; kills the process, and its workers, at its end."""
        self.folder.mkdir(exist_ok=True)
        config = self.config.replace(runs_dir=str(self.folder), run=self._root.name, restarts=0)
        if config.training.feature_cache != "off":
            config = config.replace(feature_cache=str(self.folder / "features"))
        several = ("cluster",) if config.cluster.workers > 1 else ()
        with open(self._log, "wb") as log:
            process = subprocess.Popen(
                [*self.program, *several, "train", *config.to_flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=child_process.environment(PYTHONUNBUFFERED="1"),
            )
        try:
            yield process
        finally:
            if several:  # killed, it would leave its workers behind; a second signal kills them
                with stop_signals.ending(process.terminate):
                    for _ in range(2):
                        process.terminate()
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            process.wait(_SIGNAL_SECONDS)
            process.kill()
            process.wait()

    def _wait_for_training(self, process: subprocess.Popen) -> None:
        """Returns once a phase starts or resumes training, or the process has ended.

        A phase that is already complete prints no such line.
        """
        while process.poll() is None and cost.PHASE_STARTS.encode() not in self._log.read_bytes():
            time.sleep(_POLL_SECONDS)

    def _check_exit_code(self, code: int) -> None:
        if code != 0:
            raise errors.RunError(
                f"a run failed with exit code {code}; its last message is: {self._last_line()}"
            )

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "(no output)")


def _compare(expected: Digests, actual: Digests) -> None:
    """Prints the digests of both runs; raises RunError if one differs."""
    names = sorted(expected | actual)
    different = [name for name in names if expected.get(name) != actual.get(name)]
    for name in names:
        verdict = "DIFFERENT" if name in different else "identical"
        logging.info(f"  {name:<26}  {expected.get(name, 'missing')[:12]:<12}  {verdict}")
    if different:
        raise errors.RunError(
            f"a killed run differs from the uninterrupted one: {', '.join(different)}."
        )


def _shortened(config: config_lib.Config, class_sizes: list[int]) -> config_lib.Config:
    """The recipe in a few steps: two epochs of each phase, a checkpoint after every step."""
    workers, settings = config.cluster.workers, config.optimization
    devices = devices_lib.count(config.run.logical_cpus) * workers
    mixes = workers > 1 and (config.augmentation.mixup or config.augmentation.cutmix)
    pairs = 2 * workers if mixes else 1  # neighbors of one worker are mixed
    units = [math.lcm(devices * parts, pairs) for parts in settings.accumulation_steps]
    per_class = min(math.ceil(max(_IMAGES, *units) / len(class_sizes)), max(class_sizes))
    images = sum(min(size, per_class) for size in class_sizes)
    batch_size = tuple(
        min(cost.shared_evenly(size, unit), max(images // unit, 1) * unit)
        for size, unit in zip(_BATCH_SIZE, units, strict=True)
    )
    return config.replace(
        train_per_class=per_class,
        validation_per_class=1,
        epochs=(2, 2),
        patience=(0, 0),
        max_minutes=(0.0, 0.0),  # which depend on the speed
        samples_per_epoch=(3 * batch_size[0], 2 * batch_size[1]),
        batch_size=batch_size,
        warmup_epochs=tuple(min(epochs, _WARMUP_EPOCHS) for epochs in settings.warmup_epochs),
        checkpoint_minutes=1e-9,
        init_from="",
        rnn_weights="",
        deterministic=True,
    )


def _checkpoint_digests(folder: pathlib.Path) -> Digests:
    """The digest of each part of a checkpoint: weights, optimizer, position."""
    reader = tf.train.load_checkpoint(str(folder / "variables"))
    parts: dict[str, list[bytes]] = {}
    for key in sorted(reader.get_variable_to_shape_map()):
        part = key.split("/")[0]
        if not part.startswith("_"):
            name = {"model": "last weights", "optimizer": "optimizer"}.get(part, "position")
            parts.setdefault(name, []).append(key.encode() + reader.get_tensor(key).tobytes())
    return {name: _digest(b"".join(values)) for name, values in parts.items()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
