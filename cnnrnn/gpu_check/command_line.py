"""Checks through the program's own commands, as a user gives them. Needs no TensorFlow."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
from collections.abc import Sequence

import numpy as np
import PIL.Image

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.gpu_check import measurement
from cnnrnn.system import child_process, progress

_IMAGES = 4
_SAMPLES = 32  # trained on before the export
_TOLERANCE = 0.05  # of the spread of a class's probability across images
_LIMIT_SECONDS = 60 * 60  # of a command; devices that wait for one another would never end


@dataclasses.dataclass(frozen=True)
class Program:
    """The program's command line.

    Attributes:
        command: up to the command word.
        folder: for all that the commands write.
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
            RunError: it ended with an exit code other than 0, or takes too long.
        """
        # In a session of its own, so that its child processes end with it.
        with subprocess.Popen(
            [*self.command, word, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=child_process.environment(TMPDIR=str(self.folder), **variables),
            start_new_session=True,
        ) as process:
            try:
                output, messages = process.communicate(timeout=_LIMIT_SECONDS)
            except subprocess.TimeoutExpired as error:
                limit = progress.duration(_LIMIT_SECONDS)
                raise errors.RunError(f"{word} did not end within {limit}") from error
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            lines = (messages or output).strip().splitlines() or ["(no output)"]
            raise errors.RunError(f"{word} ended with exit code {process.returncode}: {lines[-1]}")
        return output


def export(program: Program, config: config_lib.Config) -> measurement.Measurement:
    """Trains briefly and exports; the export's predictions on the CPU must be the run's here.

    Figures: "largest", the largest difference of a probability; "spread", the largest difference
    of a class's probability across images.
    """
    batch_size = config.training.batch_size[0]
    short = config.replace(
        run="exported",
        runs_dir=str(program.folder),
        feature_cache="off",
        precision="float32",
        epochs=(1, 1),
        samples_per_epoch=(math.ceil(_SAMPLES / batch_size) * batch_size, 0),
    )
    program.run("phase1", *short.to_flags())
    model = program.folder / "exported"
    program.run("export", f"--model={model}", f"--top={10**6}")
    images = [str(path) for path in _write_images(program.folder / "images")]
    flags = ["--format=jsonl", f"--top={10**6}"]
    here = program.run("predict", f"--model={model}", *flags, *images, NVIDIA_TF32_OVERRIDE="0")
    on_cpu = program.run(
        "predict",
        f"--model={model / 'export'}",
        "--format=jsonl",
        *images,
        CUDA_VISIBLE_DEVICES="-1",
    )
    before, now = _probabilities(here), _probabilities(on_cpu)  # by image and class
    classes = sorted(now[0])  # the export returns the most likely ones
    before, now = (np.array([[p[name] for name in classes] for p in of]) for of in (before, now))
    largest, spread = np.max(np.abs(now - before)), np.max(np.ptp(before, axis=0))
    return measurement.Measurement(
        bool(largest <= _TOLERANCE * spread and spread > 0),
        f"on the CPU probabilities differ by up to {largest:.1e}, across images by {spread:.1e}",
        {"largest": float(largest), "spread": float(spread)},
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
