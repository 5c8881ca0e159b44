"""A contestant in a process of its own, driven over its standard input and output.

It answers {"parameters": ...} when it has been built and warmed up, then for each line N it trains
N steps and answers {"seconds": for all of them, "peak_bytes": the most memory it has had}. Its own
environment, flags and memory allocator cannot reach the other contestants.
"""

import json
import os
import pathlib
import resource
import sys
import time

WARM_UP = 1  # compiles


def serve(make, *arguments, **keywords) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the libraries print is not an answer
    run, parameters = make(*arguments, **keywords)
    run(WARM_UP)
    print(json.dumps({"parameters": parameters}), file=answers)
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_bytes": _peak_bytes()}), file=answers)


def _peak_bytes() -> int:
    """The most memory that this process has had.

    As `cnnrnn.memory.peak`, which rivals must not import: it would set their kernels.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss begins at what the process that started it had
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
