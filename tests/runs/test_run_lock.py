"""Two processes on one run folder."""

import subprocess
import sys

import pytest

from cnnrnn import errors
from cnnrnn.runs import run_lock
from tests import helpers

HOLD = """
import pathlib, sys
from cnnrnn import run_lock
with run_lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=helpers.REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_and_told_of_the_first(holder, tmp_path):
    with pytest.raises(errors.UsageError, match=f"in use by process {holder.pid} on .* since 20"):
        with run_lock.held(tmp_path):
            pass


def test_a_lock_of_a_dead_process_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    with run_lock.held(tmp_path):
        assert (tmp_path / ".lock").exists()
    with run_lock.held(tmp_path):
        pass


def test_a_damaged_lock_file_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").write_bytes(b"\x00\xff half")
    with run_lock.held(tmp_path, log=pytest.fail):
        pass


def test_a_folder_with_nothing_but_the_lock_is_removed(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    with run_lock.held(root):
        run_lock.forget(root)
    assert not root.exists()
    root.mkdir()
    (root / "config.json").write_text("{}")
    with run_lock.held(root):
        run_lock.forget(root)
    assert (root / "config.json").exists()
