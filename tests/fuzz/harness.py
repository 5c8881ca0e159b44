"""Runs a fuzzer in a child process, so that crashes and hangs are reported.

    PYTHONPATH=. python tests/fuzz/images.py --count=100000 [--seed=0] [--first=0]

A fuzzer calls a function with consecutive numbers; any exception is a failure. The number is
recorded before the call, so that a failure can be repeated by --first=NUMBER --count=1.
"""

import argparse
import collections
import faulthandler
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

_HANG_SECONDS = 60
_REPORT_SECONDS = 60.0


def main(make: Callable[[int, pathlib.Path], Callable[[int], str]]) -> None:
    """The main function of a fuzzer's script.

    Args:
        make: make(seed, folder) returns try_one(number), which returns a short description of the
            outcome, to be counted. `folder` is empty and removed at the end.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options, make)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *sys.argv, f"--worker={folder}"]
        code = subprocess.run(command).returncode
        if code:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            current = pathlib.Path(folder) / "current"
            if not current.exists():
                sys.exit(f"{how} before the first try")
            number = current.read_text().strip()
            sys.exit(f"{how} at --seed={options.seed} --first={number} --count=1")


def _work(options: argparse.Namespace, make) -> None:
    sandbox = pathlib.Path(options.worker) / "sandbox"
    sandbox.mkdir()
    try_one = make(options.seed, sandbox)
    outcomes: collections.Counter[str] = collections.Counter()
    current = os.open(pathlib.Path(options.worker) / "current", os.O_WRONLY | os.O_CREAT)
    start = reported = time.monotonic()
    for number in range(options.first, options.first + options.count):
        os.pwrite(current, f"{number:<20}".encode(), 0)
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        outcomes[try_one(number)] += 1
        faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            print(f"{number + 1 - options.first:,} tried", flush=True)
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{options.count:,} tried in {time.monotonic() - start:.0f} s: {counts}")
