"""The program in child processes: found in any folder, with no module of the current folder."""

import os
import subprocess
import time

from cnnrnn.system import child_process
from tests import helpers


def test_the_program_starts_in_any_folder_without_pythonpath(monkeypatch, tmp_path):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run(
        [*child_process.PROGRAM, "--help"],
        cwd=tmp_path,
        env=child_process.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "phase1" in done.stdout


def test_modules_in_the_current_folder_are_not_imported(tmp_path):
    for name in ("absl.py", "cnnrnn.py", "dataclasses.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the current folder')\n")
    done = subprocess.run(
        [*child_process.PROGRAM, "--help"],
        cwd=tmp_path,
        env=child_process.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_pythonpath_is_kept_after_the_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/a{os.pathsep}/b")
    changed = child_process.environment(PYTHONUNBUFFERED="1")
    expected = os.pathsep.join([str(helpers.REPOSITORY.resolve()), "/a", "/b"])
    assert (changed["PYTHONPATH"], changed["PYTHONUNBUFFERED"]) == (expected, "1")


def test_a_function_in_a_child_process_returns_its_result_or_its_error():
    assert child_process.call(os.path.basename, "/a/b").answer == "b"
    assert isinstance(child_process.call(os.rmdir, "/no such folder").answer, FileNotFoundError)


def test_a_child_process_that_takes_too_long_is_killed():
    ended = child_process.call(time.sleep, 60, limit_seconds=0.1)
    assert isinstance(ended.answer, TimeoutError) and str(ended.answer) == "did not end within 1 s"


def test_a_child_process_that_ends_without_an_answer():
    ended = child_process.call(os._exit, 7)
    assert (ended.answer, ended.exit_code) == (None, 7)
    assert ended.how.startswith("ended with exit code 7 at ")
