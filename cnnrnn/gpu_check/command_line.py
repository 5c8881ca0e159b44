"""Checks through the program's own commands, as a user gives them. Needs no TensorFlow."""

import dataclasses
import json
import math
import pathlib
import subprocess
from collections.abc import Sequence

import numpy as np
import PIL.Image

from cnnrnn import config as config_lib
from cnnrnn.gpu_check import measurement
from cnnrnn.system import child_process

_IMAGES = 4
_TOLERANCE = 0.01  # of a probability; both are computed in float32


class CommandFailedError(Exception):
    """A command ended with an exit code other than 0; the message has its last line."""


@dataclasses.dataclass(frozen=True)
class Program:
    """The program's command line.

    Attributes:
        command: up to the command word.
        folder: for all that the commands write, their output included.
    """

    command: Sequence[str]
    folder: pathlib.Path

    def run(self, word: str, *arguments: str, **variables: str) -> str:
        """Runs a command and returns its standard output.

        Args:
            word: the command.
            *arguments: of the command.
            **variables: of the environment, besides the present ones.

        Raises:
            CommandFailedError: see there.
        """
        done = subprocess.run(
            [*self.command, word, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=child_process.environment(**variables),
        )
        log = self.folder / f"{word}.log"
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["(no output)"]
            raise CommandFailedError(f"{word} ended with exit code {done.returncode}: {lines[-1]}")
        return done.stdout


def export(program: Program, config: config_lib.Config) -> measurement.Measurement:
    """Trains briefly and exports; the export's predictions on the CPU must be the run's here.

    Figures: "largest", the largest difference of a probability.
    """
    short = config.replace(
        run="exported",
        runs_dir=str(program.folder),
        feature_cache="off",
        precision="float32",
        epochs=(1, 1),
        samples_per_epoch=(math.ceil(32 / config.training.batch_size[0]) * 32, 0),
    )
    program.run("phase1", *short.to_flags())
    model = program.folder / "exported"
    program.run("export", f"--model={model}")
    images = [str(path) for path in _write_images(program.folder / "images")]
    flags = ["--format=jsonl", f"--top={10**6}"]
    here = program.run("predict", f"--model={model}", *flags, *images)
    on_cpu = program.run(
        "predict", f"--model={model / 'export'}", "--format=jsonl", *images, CUDA_VISIBLE_DEVICES=""
    )
    largest = max(
        abs(probability - before[name])
        for before, now in zip(_probabilities(here), _probabilities(on_cpu), strict=True)
        for name, probability in now.items()
    )
    return measurement.Measurement(
        largest <= _TOLERANCE,
        f"probabilities of {_IMAGES} images differ by up to {largest:.1e} on the CPU",
        {"largest": largest},
    )


def resume(program: Program, config: config_lib.Config) -> measurement.Measurement:
    """`verify-resume` with one kill."""
    output = program.run("verify-resume", *config.replace(kills=1).to_flags())
    return measurement.Measurement(True, output.strip().splitlines()[-1])


def _write_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes images of smooth noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(_IMAGES)]
    for path in paths:
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8))
        coarse.resize((299, 299)).save(path)
    return paths


def _probabilities(output: str) -> list[dict[str, float]]:
    """The probabilities by class of each image, from the output of predict."""
    records = [json.loads(line) for line in output.splitlines()]
    return [{c["class"]: c["probability"] for c in record["classes"]} for record in records]
