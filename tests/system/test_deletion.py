"""Deletion in a thread: whether the process waits for it, and how it ends."""

import subprocess
import sys

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
{end}
"""


@pytest.mark.parametrize(
    "seconds, pause, end, output",
    [
        (60, 0, "deletion.exit_process(7)", "the last line\n"),
        (0, 1, "deletion.exit_process(7)", "deleted\nthe last line\n"),
        # TensorFlow's deletion aborts the process if the interpreter ends meanwhile.
        (1, 0, "sys.exit(7)", "the last line\ndeleted\n"),
    ],
    ids=["under way", "done", "another end"],
)
def test_only_exit_process_does_not_wait_for_a_deletion(seconds, pause, end, output):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(seconds=seconds, pause=pause, end=end)],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, output, "")
