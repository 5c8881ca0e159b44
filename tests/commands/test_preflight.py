"""`preflight`: dry runs in child processes, and how they fail."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import preflight
from cnnrnn.settings import paths
from cnnrnn.system import devices, quiet_tensorflow
from cnnrnn.training import dry_run
from tests import helpers
from tests.commands import preflight_stand_ins


def test_the_table_shows_both_phases_and_the_full_duration(capsys):
    preflight.run((), config.Config(), preflight_stand_ins.recorded)
    table = capsys.readouterr().out
    for words in (
        "phase 1                     phase 2",
        "4 images",
        "the CPU, float32",
        "a kernel",
        "3.1 GB",
        "23.0 GB",
        "5.0 images/s                -",
        "600 images: 2 min 00 s",
        "3 x 200 images: 1 min 00 s",
        "3 min 15 s                  4 min 10 s",
        "evaluation: 25 s",
        "7 min 50 s (estimate",
    ):
        assert words in table


def test_a_killed_dry_run_is_reported_with_its_memory(capsys):
    settings = config.Config.of(batch_size=(4, 64))
    with pytest.raises(errors.RunError) as raised:
        preflight.run((), settings, preflight_stand_ins.killed_in_phase2)
    message = str(raised.value)
    assert message.startswith("phase 2 at --batch_size=64 does not fit: the process was killed by")
    assert "Use a smaller --batch_size" in message
    if sys.platform == "linux":
        peak = float(message.split("system at ")[1].split(" GB")[0])
        assert 0.3 <= peak < 0.5
    assert "3 x 200 images" in capsys.readouterr().out  # phase 1's


def test_a_dry_run_measures_after_tensorflow_is_imported_and_set_up(monkeypatch):
    """The child process of each phase begins here."""
    calls = []
    monkeypatch.setattr(quiet_tensorflow, "import_tensorflow", lambda **_: calls.append("imported"))
    monkeypatch.setattr(devices, "configure", lambda **settings: calls.append(settings))
    monkeypatch.setattr(dry_run, "measure", lambda *arguments: arguments)
    settings = config.Config.of(deterministic=True)
    assert preflight.dry_run_phase("phase2", settings) == ("phase2", settings)
    assert calls == ["imported", {"deterministic": True}]


def test_a_gpu_does_not_swap(capsys):
    preflight.run((), config.Config(), preflight_stand_ins.on_a_small_gpu)
    assert "GPU memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    "measure, kind, message",
    [
        (
            preflight_stand_ins.out_of_memory,
            errors.RunError,
            "phase 1 at --batch_size=4 does not fit: it ran out of",
        ),
        (
            preflight_stand_ins.out_of_gpu_memory,
            errors.RunError,
            r"does not fit: it ran out of GPU memory \(OOM",
        ),
        (preflight_stand_ins.wrong_use, errors.UsageError, "no such data set"),
        (preflight_stand_ins.crashing, errors.RunError, "ended with exit code 7"),
        (preflight_stand_ins.swapping, errors.RunError, "took 9.0 GB, and 8.0 GB were"),
    ],
)
def test_failures_of_a_dry_run_are_one_sentence(measure, kind, message):
    with pytest.raises(kind, match=message):
        preflight.run((), config.Config.of(batch_size=(4, 2)), measure)


CODE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background, a shell ignores it
from cnnrnn import config, errors
from cnnrnn.commands import preflight
from cnnrnn.system import stop_signals
from tests.commands import preflight_stand_ins
stop_signals.install()
try:
    preflight.run((), config.Config(), preflight_stand_ins.never_ending)
except errors.Stopped as stopped:
    raise SystemExit(stopped.exit_code)
"""


@pytest.fixture
def running(tmp_path):
    """A preflight during a dry run: (process, process id of its child)."""
    file = tmp_path / "child"
    environment = {**os.environ, "PYTHONPATH": str(helpers.REPOSITORY), "CHILD_ID_FILE": str(file)}
    with subprocess.Popen([sys.executable, "-c", CODE], env=environment) as process:
        while not (file.exists() and file.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        yield process, int(file.read_text())
        process.kill()


def test_ctrl_c_ends_preflight_and_its_child_at_once(running):
    process, child = running
    began = time.monotonic()
    for target in (child, process.pid):  # a terminal sends it to both
        os.kill(target, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 30  # the child would run for a minute
    helpers.assert_ends(child, 10)


def test_the_child_ends_with_a_killed_preflight(running):
    process, child = running
    process.kill()
    helpers.assert_ends(child, 10)


@pytest.mark.slow  # in this process: test_dry_run
def test_a_dry_run_leaves_no_files(small_config, tmp_path):
    folders = tmp_path, paths.cache_dir()
    before = [sorted(folder.rglob("*")) for folder in folders]
    found = preflight.measure_in_child("phase2", small_config, preflight_stand_ins.small_dry_run)
    preflight_stand_ins.assert_measured(found)
    assert [sorted(folder.rglob("*")) for folder in folders] == before
