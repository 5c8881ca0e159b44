"""Deletion in a thread: the process does not wait for it, and ends as it should."""

import subprocess
import sys
import time

import pytest

from tests import helpers

CODE = """
import sys, time
from cnnrnn.system import deletion

class Slow:
    def __del__(self):
        time.sleep({seconds})
        print("deleted", flush=True)

deletion.in_background([Slow()])
time.sleep({pause})
print("the last line")
deletion.exit_process({code})
"""


@pytest.mark.parametrize(
    "seconds, pause, output",
    [(60, 0, "the last line\n"), (0, 1, "deleted\nthe last line\n")],
    ids=["under way", "done"],
)
def test_the_process_does_not_wait_for_a_deletion(seconds, pause, output):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(seconds=seconds, pause=pause, code=7)],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, output, "")
    assert time.monotonic() - began < 50
