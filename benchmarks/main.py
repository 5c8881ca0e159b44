"""Images/s of full training steps, beside Keras's model.fit and PyTorch.

    ./run.sh bench [--peers] [--images=FOLDER] [--out=FOLDER]

This program and a baseline run in separate processes and take turns, one step each per round, so
that two never train at the same time. The reported ratio is that of the medians over the same
rounds: a machine whose speed drifts slows both. Only two networks are in memory at a time,
because each takes up to 10 GB. Training steps use synthetic data; the input pipelines read JPEGs.
Each round also measures the peak rate of a matrix product.

This process imports neither cnnrnn nor TensorFlow: both set environment variables, which the
baselines would inherit.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent import futures

from benchmarks import arithmetic, contestants, peers, process, table

_TORCH_EXTRA = 2 * 4 * 2048  # torch.nn.LSTM has a second bias in each layer
ROUNDS = 3


def worker(
    name: str,
    phase: int,
    precision: str,
    *,
    parameters: int = contestants.PARAMETERS,
    onednn: str | None = None,
) -> process.Contestant:
    """Starts `benchmarks.worker` in this environment."""
    command = [sys.executable, "-m", "benchmarks.worker", name, str(phase), precision]
    return process.Contestant(command, parameters, onednn)


def torch(phase: int, precision: str, python: pathlib.Path) -> process.Contestant:
    """Starts `torch_worker.py` by the interpreter of the environment with PyTorch."""
    script = str(pathlib.Path(__file__).with_name("torch_worker.py"))
    command = [str(python), script, str(phase), precision]
    return process.Contestant(command, contestants.PARAMETERS + _TORCH_EXTRA)


@dataclasses.dataclass(frozen=True)
class Pairing:
    """This program in one phase and precision, and a baseline.

    Attributes:
        phase: 1 or 2.
        precision: of this program, "float32" or "bfloat16".
        baseline: its name in the table.
        start: starts the baseline's process.
    """

    phase: int
    precision: str
    baseline: str
    start: Callable[[], process.Contestant]


def pairings(python: pathlib.Path | None, precisions: list[str]) -> list[Pairing]:
    """All pairings, grouped by phase and precision.

    Args:
        python: the interpreter of an environment with PyTorch; None leaves PyTorch out.
        precisions: those to measure this program in.
    """
    result = []
    for phase, precision in itertools.product((1, 2), precisions):
        baselines = {
            f"Keras fit, {other}": functools.partial(worker, "keras", phase, other)
            for other in dict.fromkeys(("float32", precision))
        }
        # Shows how much of the gain comes from oneDNN alone, which TensorFlow leaves off on some
        # processors and cnnrnn turns on.
        with_onednn = functools.partial(worker, "keras", phase, "float32", onednn="1")
        baselines["Keras fit, float32, oneDNN on"] = with_onednn
        if phase == 1:
            uncached = functools.partial(worker, "program-uncached", phase, precision)
            baselines["this program without the cache"] = uncached
        if python is not None:
            baselines[f"PyTorch, {precision}"] = functools.partial(torch, phase, precision, python)
        result += [Pairing(phase, precision, name, start) for name, start in baselines.items()]
    return result


def measure(
    pairing: Pairing, program: process.Contestant, peak: process.Contestant, operations: float
) -> table.Row:
    """Measures this program and one baseline in turn.

    Args:
        pairing: names the baseline, whose process is started and ended here.
        program: this program's process.
        peak: the process that multiplies matrices.
        operations: floating-point operations per image of this program's step.
    """
    times, baseline_times, peaks = [], [], []
    with contextlib.closing(pairing.start()) as baseline:
        for _ in range(ROUNDS):
            peaks.append(peak.seconds(3))
            baseline_times.append(baseline.seconds(1))
            times.append(program.seconds(1))
    peak_rate = 2 * contestants.PEAK_SIZE**3 / statistics.median(peaks)
    batch = contestants.BATCH[pairing.phase]
    rate = batch / statistics.median(times)
    return table.Row(
        phase=pairing.phase,
        batch=batch,
        precision=pairing.precision,
        baseline=pairing.baseline,
        baseline_rate=batch / statistics.median(baseline_times),
        rate=rate,
        peak_gflops=peak_rate / 1e9,
        fraction=rate * operations / peak_rate,
        baseline_gb=baseline.gigabytes,
        gb=program.gigabytes,
    )


def steps(all_pairings: list[Pairing]) -> list[table.Row]:
    """Measures all pairings and prints progress."""
    rows = []
    groups = itertools.groupby(all_pairings, lambda pairing: (pairing.phase, pairing.precision))
    for (phase, precision), group in groups:
        operations = in_subprocess(_operations, phase)
        with (
            contextlib.closing(worker("peak", phase, precision, parameters=0)) as peak,
            contextlib.closing(worker("program", phase, precision)) as program,
        ):
            for pairing in group:
                print(
                    f"{len(rows) + 1} of {len(all_pairings)}: phase {phase}, {precision}, "
                    f"beside {pairing.baseline} ...",
                    flush=True,
                )
                row = measure(pairing, program, peak, operations)
                print(
                    f"    {row.rate:.2f} images/s, baseline {row.baseline_rate:.2f}, "
                    f"ratio {row.ratio:.2f}",
                    flush=True,
                )
                rows.append(row)
    return rows


def in_subprocess(function: Callable, *arguments):
    """Calls a function in a new process."""
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=context, initializer=_quieten) as pool:
        return pool.submit(function, *arguments).result()


def _quieten() -> None:
    """Discards what TensorFlow logs while it is imported; errors return as exceptions."""
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)


def _operations(phase: int) -> float:
    return arithmetic.per_image(phase, cached=phase == 1)


def _pipelines(images: pathlib.Path | None) -> dict[str, float]:
    from benchmarks import pipelines

    # The checks of images that are removed afterwards do not belong in the user's cache.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CNNRNN_CACHE"] = cache
        return pipelines.measure(images)


def _native_bfloat16() -> bool:
    from cnnrnn.system import devices as devices_lib

    return devices_lib.precision("auto") == "bfloat16"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run.sh bench", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true",
                        help="also measure PyTorch, in a separate environment that is created "
                        "from benchmarks/requirements-peers.txt (about 1 GB)")  # fmt: skip
    parser.add_argument("--bfloat16", action="store_true",
                        help="measure bfloat16 even if the processor does not support it "
                        "natively (a step can take minutes)")  # fmt: skip
    parser.add_argument("--images", type=pathlib.Path,
                        help="JPEGs for the input pipelines: class folders, or tiny-imagenet's "
                        "zip; default: synthetic images")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks-out"),
                        help="folder for table.md and table.json; "
                        "default: benchmarks-out")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    arguments = _parse(argv)
    if arguments.images and not arguments.images.exists():
        raise SystemExit(f"--images={arguments.images} does not exist")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this measures the CPU; check-gpu measures GPUs
    python = peers.python() if arguments.peers else None
    torch_version = peers.version(python) if python else None
    precisions = ["float32"]
    if arguments.bfloat16 or in_subprocess(_native_bfloat16):
        precisions.append("bfloat16")
    else:
        print("bfloat16 is not measured: no native support (--bfloat16 measures it anyway)")
    about = {
        "command": shlex.join(["./run.sh", "bench", *argv]),
        "machine": table.machine(torch_version),
    }
    pipeline_rates = in_subprocess(_pipelines, arguments.images)
    rows = steps(pairings(python, precisions))
    text = table.write(arguments.out, about, rows, pipeline_rates)
    print(f"\n{text}\nwritten to {arguments.out}/table.md and table.json")


if __name__ == "__main__":
    main(sys.argv[1:])
