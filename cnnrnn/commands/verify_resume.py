"""`verify-resume`: proves on this machine, with these images, that a killed run resumes exactly.

The whole recipe, cut to a few steps at full size, is run once straight on and once with SIGKILL
at random moments, started again after each with the same command. Then everything that decides a
run's result is compared, to the bit.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import progress

_PROGRAM = (sys.executable, "-P", "-m", "cnnrnn.main")
_IMAGES = 64  # of training, or one of each class
_KILLS_A_RUN = 5  # about; more take more runs
_KILLS_AT_START = 0.2  # the share of kills before a run works; the others come within its work
_WORKS = "parameters train"  # what a run says as it begins to work
_POLL_SECONDS = 0.1
_GIGABYTES = 6.0  # what one run of both phases takes while it trains
_TIMINGS = ("images_per_second", "waiting_for_input")  # these do differ
Digests = dict[str, str]


def run(
    arguments: Sequence[str], config: config_lib.Config, program: Sequence[str] = _PROGRAM
) -> None:
    """Runs the comparison and prints the verdict.

    Args:
        config: names the data set; `kills` says how many there are to be.
        program: what is run, up to the command's name.

    Raises:
        RunError: the two runs differ, or one of them failed.
    """
    from cnnrnn.datasets import dataset as dataset_lib

    classes = len(dataset_lib.load(config).class_names)
    rng = random.Random(config.run.seed)
    with tempfile.TemporaryDirectory(prefix="cnnrnn-verify-resume-") as folder:
        trial = _Trial(pathlib.Path(folder), _shortened(config, classes), tuple(program))
        _check_room(trial.folder)
        timing = trial.run_straight()
        straight = trial.take_digests("straight")
        logging.info(f"straight {progress.duration(timing.total)}")
        killed, rounds = 0, 0
        while killed < config.verification.kills:
            killed += trial.run_with_kills(config.verification.kills - killed, timing, rng)
            rounds += 1
            _compare(straight, trial.take_digests("killed"))
    logging.info(
        f"verdict  {killed} kills in {rounds} run(s) of both phases, and all of the above is the "
        "same to the bit as in one go"
    )


@dataclasses.dataclass(frozen=True)
class _Timing:
    """Seconds that a run takes until it begins to work, and in all."""

    start: float
    total: float


@dataclasses.dataclass(frozen=True)
class _Trial:
    folder: pathlib.Path
    config: config_lib.Config
    program: tuple[str, ...]

    def run_straight(self) -> _Timing:
        """Runs the recipe in one go."""
        began = time.monotonic()
        with self._started("straight") as process:
            self._wait_for_work("straight", process)
            start = time.monotonic() - began
            _check_ended(process.wait(), self._log("straight"))
        return _Timing(start, time.monotonic() - began)

    def run_with_kills(self, most: int, timing: _Timing, rng: random.Random) -> int:
        """Runs the recipe, killing it so often at most; returns how often it was killed."""
        stretch = 2 * (timing.total - timing.start) / (_KILLS_A_RUN + 1)
        most = min(most, 2 * _KILLS_A_RUN)
        for kill in range(most):
            with self._started("killed") as process, contextlib.suppress(subprocess.TimeoutExpired):
                began = time.monotonic()
                if rng.random() < _KILLS_AT_START:
                    process.wait(rng.uniform(0, timing.start))
                else:
                    self._wait_for_work("killed", process)
                    process.wait(rng.uniform(0, stretch))
                _check_ended(process.returncode, self._log("killed"))
                return kill
            after = time.monotonic() - began
            logging.info(f"kill     after {after:.1f} s, at: {_last_line(self._log('killed'))}")
        with self._started("killed") as process:
            _check_ended(process.wait(), self._log("killed"))
        return most

    def take_digests(self, name: str) -> Digests:
        """A hash of each thing that a run has left and that no kill may change; removes the run."""
        from cnnrnn.runs import event_files

        root = self.folder / name / "run"
        found = {"results": _sha256((root / "results.json").read_bytes())}
        for phase in ("phase1", "phase2"):
            best = json.loads((root / "best" / f"{phase}.json").read_text(encoding="utf-8"))
            found[f"{phase} best weights"] = _sha256((root / "best" / best["weights"]).read_bytes())
            found[f"{phase} best figures"] = _sha256(json.dumps(best).encode())
            last = max((root / "checkpoints" / phase).iterdir())
            found |= {f"{phase} {part}": digest for part, digest in _checkpoint(last).items()}
            for split in ("train", "validation"):
                points = event_files.scalars(root / "events" / phase / split)
                kept = [point for point in points if point[0] not in _TIMINGS]
                found[f"{phase} curves, {split}"] = _sha256(repr(kept).encode())
        shutil.rmtree(self.folder / name)
        return found

    @contextlib.contextmanager
    def _started(self, name: str) -> Iterator[subprocess.Popen]:
        """Runs the recipe while the block runs; what is left of it then gets SIGKILL."""
        config = self.config.replace(
            runs_dir=str(self.folder / name),
            run="run",
            feature_cache=str(self.folder / name / "features"),
        )
        with open(self._log(name), "wb") as log:
            process = subprocess.Popen(
                [*self.program, "train", *config.to_flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},  # the log says how far it is
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _wait_for_work(self, name: str, process: subprocess.Popen) -> None:
        """Returns when a run says that it begins to work, or has ended."""
        while process.poll() is None:
            if _WORKS in self._log(name).read_text(encoding="utf-8", errors="replace"):
                return
            time.sleep(_POLL_SECONDS)

    def _log(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.log"


def _compare(straight: Digests, killed: Digests) -> None:
    """Prints both runs' digests side by side; raises RunError if one differs."""
    names = sorted(straight | killed)
    different = [name for name in names if straight.get(name) != killed.get(name)]
    for name in names:
        same = "DIFFERENT" if name in different else "the same"
        logging.info(f"  {name:<26}  {straight.get(name, 'none')[:12]:<12}  {same}")
    if different:
        raise errors.RunError(f"a killed run differs from one in one go: {', '.join(different)}.")


def _shortened(config: config_lib.Config, classes: int) -> config_lib.Config:
    """The recipe in a few steps: two epochs of each phase, a checkpoint after every step."""
    per_class = math.ceil(_IMAGES / classes)
    return config.replace(
        train_per_class=min(config.data.train_per_class or per_class, per_class),
        validation_per_class=1,
        epochs=(2, 2),
        samples_per_epoch=(48, 8),
        batch_size=(16, 4),
        checkpoint_minutes=1e-9,
        init_from="",
    )


def _check_room(folder: pathlib.Path) -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < _GIGABYTES:
        raise errors.RunError(
            f"verify-resume needs {_GIGABYTES:.0f} GB in {folder}, where {free:.1f} GB are free: "
            "make room, or name another place by TMPDIR."
        )


def _check_ended(code: int, log: pathlib.Path) -> None:
    if code != 0:
        raise errors.RunError(
            f"a run ended by itself with exit code {code}, saying: {_last_line(log)}"
        )


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing yet")


def _checkpoint(folder: pathlib.Path) -> Digests:
    """A hash of each part of a checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables"))
    parts: dict[str, list[bytes]] = {}
    for key in sorted(reader.get_variable_to_shape_map()):
        part = key.split("/")[0]
        if not part.startswith("_"):
            name = {"model": "last weights", "optimizer": "optimizer"}.get(part, "position")
            parts.setdefault(name, []).append(key.encode() + reader.get_tensor(key).tobytes())
    return {name: _sha256(b"".join(values)) for name, values in parts.items()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
