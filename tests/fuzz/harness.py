"""Runs a fuzzer in a process of its own, so that a crash or a hang of it can be told.

    python tests/fuzz/images.py --count=100000 [--seed=0] [--first=0]

A fuzzer calls one function for each number; whatever the function raises is a find. The number
is noted before, so a find can be repeated: --first=NUMBER --count=1.
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
_TELL_SECONDS = 60.0


def main(make: Callable[[int, pathlib.Path], Callable[[int], str]]) -> None:
    """The whole of a fuzzer's script.

    Args:
        make: make(seed, folder) -> try_one(number) -> what came of it, in a word, to be counted.
            `folder` is empty and goes away at the end.
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
            at = (pathlib.Path(folder) / "at").read_text().strip()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            sys.exit(f"{how} at --seed={options.seed} --first={at} --count=1")


def _work(options: argparse.Namespace, make) -> None:
    sandbox = pathlib.Path(options.worker) / "sandbox"
    sandbox.mkdir()
    try_one = make(options.seed, sandbox)
    outcomes: collections.Counter[str] = collections.Counter()
    note = os.open(pathlib.Path(options.worker) / "at", os.O_WRONLY | os.O_CREAT)
    start = told = time.monotonic()
    for number in range(options.first, options.first + options.count):
        os.pwrite(note, f"{number:<20}".encode(), 0)
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        outcomes[try_one(number)] += 1
        faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            print(f"{number + 1 - options.first:,} tried", flush=True)
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{options.count:,} tried in {time.monotonic() - start:.0f} s: {counts}")
