"""Where the milliseconds of one training step go, by kind of operation.

    python -m benchmarks.profile_step --phase=2
    TF_ENABLE_ONEDNN_OPTS=0 python -m benchmarks.profile_step --phase=2 --keras

The first profiles this program's step, the second the same network in plain Keras, trained by
model.fit, as TensorFlow comes on a processor without AVX-512. Operations run side by side, so their
times add up to more than the step took; a thread waits in none of them.
"""

import argparse
import collections
import glob
import sys
import tempfile
import time
from collections.abc import Callable

import cnnrnn  # noqa: F401  before TensorFlow: it says which kernels are to be used

# isort: split
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import contestants

_WARM_UP = 2


def operations(run: Callable[[], None]) -> tuple[float, dict[str, tuple[float, int]]]:
    """Runs a function under tf.profiler.

    Returns:
        The seconds it took, and for each kind of operation its milliseconds and how many there
        were.
    """
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        tf.profiler.experimental.stop()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        space = xplane_pb2.XSpace()
        with open(path, "rb") as file:
            space.ParseFromString(file.read())
    milliseconds, count = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # Operations are named "node:kind"; what is not is TensorFlow's own business.
                name = plane.event_metadata[event.metadata_id].name
                node, _, kind = name.rpartition(":")
                if not node or node.endswith(":") or "#" in node or "__" in kind:
                    continue
                milliseconds[kind.split("#")[0]] += event.duration_ps / 1e9
                count[kind.split("#")[0]] += 1
    return seconds, {kind: (ms, count[kind]) for kind, ms in milliseconds.items()}


def table(seconds: float, kinds: dict[str, tuple[float, int]], rows: int = 20) -> str:
    """The kinds that took longest, as markdown."""
    total = sum(ms for ms, _ in kinds.values())
    lines = [
        f"step {seconds * 1e3:,.0f} ms; operations {total:,.0f} ms, some of them side by side",
        "",
        "| operation | ms | share | count |",
        "| --- | ---: | ---: | ---: |",
    ]
    ordered = sorted(kinds.items(), key=lambda item: -item[1][0])
    for kind, (ms, count) in ordered[:rows]:
        lines.append(f"| {kind} | {ms:,.0f} | {ms / total:.1%} | {count} |")
    rest = sum(ms for _, (ms, _) in ordered[rows:])
    lines.append(f"| all others | {rest:,.0f} | {rest / total:.1%} | |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phase", type=int, choices=(1, 2), default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--keras", action="store_true", help="the network in plain Keras")
    arguments = parser.parse_args(argv)
    make = contestants.keras_fit if arguments.keras else contestants.program
    run, _ = make(arguments.phase, arguments.precision)
    run(_WARM_UP)
    print(table(*operations(lambda: run(1))))


if __name__ == "__main__":
    main(sys.argv[1:])
