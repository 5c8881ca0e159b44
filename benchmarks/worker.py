"""A contestant in its own process, driven over standard input and output.

It writes {"parameters": ...} once it is built and warmed up. Then, for each line N that it reads,
it trains N steps and writes {"seconds": total, "peak_bytes": peak resident memory}. A separate
process keeps environment variables, flags and memory of the contestants apart.
"""

import json
import os
import pathlib
import resource
import sys
import time

WARM_UP = 1  # step; TensorFlow compiles in it


def serve(make, *arguments, **keywords) -> None:
    """Builds a contestant by `make(*arguments, **keywords)` and serves it until input ends."""
    responses = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps what libraries print out of the responses
    run, parameters = make(*arguments, **keywords)
    run(WARM_UP)
    print(json.dumps({"parameters": parameters}), file=responses)
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_bytes": _peak_bytes()}), file=responses)


def _peak_bytes() -> int:
    """Peak resident memory of this process.

    A copy of `cnnrnn.system.memory.peak`: importing cnnrnn sets environment variables, which would
    change the kernels of the baselines, and the PyTorch environment does not have cnnrnn.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss starts at the value of the parent process
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def main(name: str, phase: int, precision: str) -> None:
    from benchmarks import contestants

    if name == "peak":
        serve(contestants.peak, precision)
    elif name == "keras":
        serve(contestants.keras_fit, phase, precision)
    else:
        serve(contestants.program, phase, precision, cached=name == "program")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
