"""Lock of a run folder: two processes, dead processes, unused folders."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from cnnrnn import errors
from cnnrnn.runs import run_lock
from tests import helpers

HOLD = """
import pathlib, sys
from cnnrnn.runs import run_lock
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


def test_a_second_process_is_refused_and_the_first_is_named(holder, tmp_path):
    with pytest.raises(errors.UsageError, match=f"in use by process {holder.pid} on .* since 20"):
        with run_lock.held(tmp_path):
            pass


def test_the_lock_of_a_dead_process_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    with run_lock.held(tmp_path):
        assert (tmp_path / ".lock").exists()
    with run_lock.held(tmp_path):
        pass


def test_a_damaged_lock_file_does_not_matter(tmp_path, capsys):
    (tmp_path / ".lock").write_bytes(b"\x00\xff half")
    with run_lock.held(tmp_path):
        pass
    assert capsys.readouterr().out == ""


def test_a_damaged_lock_file_names_no_process(tmp_path):
    with run_lock.held(tmp_path):
        (tmp_path / ".lock").write_text("half")
        with pytest.raises(errors.UsageError, match="in use by another process"):
            with run_lock.held(tmp_path):
                pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, capsys):
    def unsupported(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with run_lock.held(tmp_path):
        pass
    assert "does not support locks" in capsys.readouterr().out


def test_a_folder_that_contains_only_the_lock_is_removed(tmp_path):
    root = tmp_path / "run"
    with run_lock.held(root):
        run_lock.remove_unused(root)
    assert not root.exists()
    root.mkdir()
    (root / "config.json").write_text("{}")
    with run_lock.held(root):
        run_lock.remove_unused(root)
    assert (root / "config.json").exists()


def test_a_lock_file_that_is_removed_meanwhile_is_created_again(tmp_path, monkeypatch):
    """Otherwise the lock would be held on a file that no other process can find."""
    flock, root = fcntl.flock, tmp_path / "run"

    def removed_before(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        os.unlink(root / ".lock")
        os.rmdir(root)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with run_lock.held(root):
        with pytest.raises(errors.UsageError, match="in use by process"):
            with run_lock.held(root):
                pass
