"""The program in child processes: found in any folder, with no module of the current folder."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cnnrnn import errors
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


def test_its_messages_name_the_program_as_those_of_its_parent(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/venv/bin/cnnrnn", "cluster"])
    command = "from cnnrnn.system import text; print(text.program())"
    environment = child_process.environment()
    shown = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "cnnrnn\n"


def test_pythonpath_is_kept_after_the_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/a{os.pathsep}/b")
    changed = child_process.environment(PYTHONUNBUFFERED="1")
    expected = os.pathsep.join([str(helpers.REPOSITORY.resolve()), "/a", "/b"])
    assert (changed["PYTHONPATH"], changed["PYTHONUNBUFFERED"]) == (expected, "1")


STOPPED = """
import pathlib, signal, sys, time
from cnnrnn import errors
from cnnrnn.system import child_process, stop_signals

child = '''
import os, pathlib, sys, time
from cnnrnn import errors
from cnnrnn.system import atomic_files, stop_signals
stop_signals.install()
try:
    with stop_signals.held():
        atomic_files.write_text(pathlib.Path(sys.argv[1] + "/begun"), str(os.getpid()))
        for _ in range(300):
            stop_signals.check()
            time.sleep(0.1)
except errors.Stopped as stopped:
    pathlib.Path(sys.argv[1] + "/saving").touch()
    time.sleep(float(sys.argv[2]))
    pathlib.Path(sys.argv[1] + "/saved").touch()
    sys.exit(stopped.exit_code)
'''
stop_signals.install()
try:
    child_process.run([sys.executable, "-c", child], sys.argv[1:])
except errors.Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize("group", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_a_command_that_is_stopped_saves_first(tmp_path, group):
    process = begun(tmp_path, seconds=0.5)
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    assert process.wait(60) == (130 if group else 143)
    assert (tmp_path / "saved").exists()


def test_a_second_signal_ends_the_command_too(tmp_path):
    process = begun(tmp_path, seconds=60)
    process.terminate()
    wait_for(process, tmp_path / "saving")
    time.sleep(0.6)  # sooner, it would mean the same as the first
    process.terminate()
    assert process.wait(10) == 143
    child = int((tmp_path / "begun").read_text())
    helpers.assert_ends(child, 10)


def begun(folder, seconds):
    """A process whose command has begun, which takes `seconds` to save."""
    program = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n{STOPPED}"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(seconds)],
        env=child_process.environment(),
        start_new_session=True,
    )
    wait_for(process, folder / "begun")
    return process


def wait_for(process, path):
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)


def test_a_command_that_fails_is_an_error_with_its_exit_code():
    child_process.run(["true"], [])
    with pytest.raises(errors.RunError, match="`phase1 '--run=a b'` ended with exit code 1"):
        child_process.run(["false"], ["phase1", "--run=a b"])


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
