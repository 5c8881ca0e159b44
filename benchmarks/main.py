"""Side by side with Keras's model.fit, and with PyTorch: images/s of whole training steps.

    ./run.sh bench [--peers] [--images=FOLDER] [--out=FOLDER]

Every rival runs in turn with this program, a step each, round after round, each in a process of
its own and never two at once. A ratio is that of the medians over the rounds that the two shared,
so a machine that drifts slows both. Two of them and no more are alive at a time, because each
takes up to 10 GB. Data is made up for the steps; the pipelines read JPEGs. In each round the peak
rate of a matrix product is measured too.

This process imports neither the program nor TensorFlow: both set environment variables, which
the rivals would inherit.
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
    command = [sys.executable, "-m", "benchmarks.worker", name, str(phase), precision]
    return process.Contestant(command, parameters, onednn)


def torch(phase: int, precision: str, python: pathlib.Path) -> process.Contestant:
    script = str(pathlib.Path(__file__).with_name("torch_worker.py"))
    command = [str(python), script, str(phase), precision]
    return process.Contestant(command, contestants.PARAMETERS + _TORCH_EXTRA)


@dataclasses.dataclass(frozen=True)
class Pairing:
    """This program in one phase and precision, and a rival: its name and what starts it."""

    phase: int
    precision: str
    rival: str
    start: Callable[[], process.Contestant]


def pairings(python: pathlib.Path | None, precisions: list[str]) -> list[Pairing]:
    """All of them, those of one phase and precision one after another.

    Args:
        python: that of an environment with PyTorch; None leaves PyTorch out.
        precisions: of this program.
    """
    found = []
    for phase, precision in itertools.product((1, 2), precisions):
        rivals = {
            f"Keras fit, {other}": functools.partial(worker, "keras", phase, other)
            for other in dict.fromkeys(("float32", precision))
        }
        # So that it is seen how much of the gain is this switch, which TensorFlow leaves off on
        # some processors and the program turns on.
        switched = functools.partial(worker, "keras", phase, "float32", onednn="1")
        rivals["Keras fit, float32, oneDNN on"] = switched
        if phase == 1:
            uncached = functools.partial(worker, "program-uncached", phase, precision)
            rivals["this program without the cache"] = uncached
        if python is not None:
            rivals[f"PyTorch, {precision}"] = functools.partial(torch, phase, precision, python)
        found += [Pairing(phase, precision, name, start) for name, start in rivals.items()]
    return found


def measure(
    pairing: Pairing, us: process.Contestant, peak: process.Contestant, operations: float
) -> table.Row:
    """Measures two contestants in turn.

    Args:
        pairing: the rival, which is started and ended here.
        us: this program.
        peak: the matrix product.
        operations: what an image costs this program.
    """
    times, rival_times, peaks = [], [], []
    with contextlib.closing(pairing.start()) as rival:
        for _ in range(ROUNDS):
            peaks.append(peak.seconds(3))
            rival_times.append(rival.seconds(1))
            times.append(us.seconds(1))
    peak_rate = 2 * contestants.PEAK_SIZE**3 / statistics.median(peaks)
    batch = contestants.BATCH[pairing.phase]
    rate = batch / statistics.median(times)
    return table.Row(
        phase=pairing.phase,
        batch=batch,
        precision=pairing.precision,
        rival=pairing.rival,
        rival_rate=batch / statistics.median(rival_times),
        rate=rate,
        peak_gflops=peak_rate / 1e9,
        fraction=rate * operations / peak_rate,
        rival_gb=rival.gigabytes,
        gb=us.gigabytes,
    )


def steps(all_pairings: list[Pairing]) -> list[table.Row]:
    """Measures all pairings, telling how far it is."""
    rows = []
    groups = itertools.groupby(all_pairings, lambda pairing: (pairing.phase, pairing.precision))
    for (phase, precision), group in groups:
        operations = apart(_operations, phase)
        with (
            contextlib.closing(worker("peak", phase, precision, parameters=0)) as peak,
            contextlib.closing(worker("program", phase, precision)) as us,
        ):
            for pairing in group:
                print(
                    f"{len(rows) + 1} of {len(all_pairings)}: phase {phase}, {precision}, "
                    f"against {pairing.rival} ...",
                    flush=True,
                )
                row = measure(pairing, us, peak, operations)
                print(
                    f"    {row.rate:.2f} images/s, the rival {row.rival_rate:.2f}: "
                    f"{row.ratio:.2f} times",
                    flush=True,
                )
                rows.append(row)
    return rows


def apart(function: Callable, *arguments):
    """Calls a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=context, initializer=_quieten) as pool:
        return pool.submit(function, *arguments).result()


def _quieten() -> None:
    """Drops what TensorFlow writes as it is imported; errors come back as exceptions."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _operations(phase: int) -> float:
    return arithmetic.per_image(phase, cached=phase == 1)


def _pipelines(images: pathlib.Path | None) -> dict[str, float]:
    from benchmarks import pipelines

    return pipelines.measure(images)


def _native_bfloat16() -> bool:
    from cnnrnn.system import devices as devices_lib

    return devices_lib.precision("auto") == "bfloat16"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run.sh bench", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true",
                        help="also PyTorch, in an environment of its own, which is made beside "
                        "this one from benchmarks/requirements-peers.txt (about 1 GB)")  # fmt: skip
    parser.add_argument("--bfloat16", action="store_true",
                        help="also where the processor has no bfloat16 (a step can take "
                        "minutes)")  # fmt: skip
    parser.add_argument("--images", type=pathlib.Path,
                        help="JPEGs for the pipelines: class folders, or tiny-imagenet's zip; "
                        "default: made up")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks-out"),
                        help="folder for table.md and table.json; "
                        "default: benchmarks-out")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    arguments = _parse(argv)
    if arguments.images and not arguments.images.exists():
        raise SystemExit(f"there is no {arguments.images}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    python = peers.python() if arguments.peers else None
    torch_version = peers.version(python) if python else None
    precisions = ["float32"]
    if arguments.bfloat16 or apart(_native_bfloat16):
        precisions.append("bfloat16")
    else:
        print("bfloat16 is left out: this processor has no bfloat16 products (--bfloat16 insists)")
    about = {
        "command": shlex.join(["./run.sh", "bench", *argv]),
        "machine": table.machine(torch_version),
    }
    pipeline_rates = apart(_pipelines, arguments.images)
    rows = steps(pairings(python, precisions))
    text = table.write(arguments.out, about, rows, pipeline_rates)
    print(f"\n{text}\nwritten to {arguments.out}/table.md and table.json")


if __name__ == "__main__":
    main(sys.argv[1:])
