"""Time of one training step by kind of operation.

    python -m benchmarks.profile_step --phase=2
    TF_ENABLE_ONEDNN_OPTS=0 python -m benchmarks.profile_step --phase=2 --keras

The first command profiles this program's step. The second profiles model.fit on the same network
built from Keras's own layers, with oneDNN off, which is TensorFlow's default on a processor
without AVX-512. Operations run in parallel, so their times add up to more than that of the step.
"""

import argparse
import collections
import glob
import sys
import tempfile
import time
from collections.abc import Callable

import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

# isort: split
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import contestants

_WARM_UP = 2


def operations(run: Callable[[], None]) -> tuple[float, dict[str, tuple[float, int]]]:
    """Runs a function under tf.profiler.

    Returns:
        The seconds that it took, and for each kind of operation its milliseconds and its count.
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
                # Operations are named "node:kind"; other events are internal to TensorFlow.
                name = plane.event_metadata[event.metadata_id].name
                node, _, kind = name.rpartition(":")
                if not node or node.endswith(":") or "#" in node or "__" in kind:
                    continue
                milliseconds[kind.split("#")[0]] += event.duration_ps / 1e9
                count[kind.split("#")[0]] += 1
    return seconds, {kind: (ms, count[kind]) for kind, ms in milliseconds.items()}


def table(seconds: float, kinds: dict[str, tuple[float, int]], rows: int = 20) -> str:
    """The `rows` kinds that took the longest, as a markdown table."""
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
    parser.add_argument("--keras", action="store_true", help="profile model.fit instead")
    arguments = parser.parse_args(argv)
    make = contestants.keras_fit if arguments.keras else contestants.program
    run, _ = make(arguments.phase, arguments.precision)
    run(_WARM_UP)
    print(table(*operations(lambda: run(1))))


if __name__ == "__main__":
    main(sys.argv[1:])
