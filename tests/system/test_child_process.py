"""The program in child processes: found in any folder, with no module of the current folder."""

import os
import subprocess

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
