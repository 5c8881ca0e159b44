"""`cluster`: starts workers, and starts them again together if one fails."""

import sys

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import cluster
from cnnrnn.system import stop_signals
from tests import helpers

SMALL = (sys.executable, "-P", str(helpers.REPOSITORY / "tests" / "small_network.py"))
# Appends its index to a file, then does what the test asks for.
WORKER = """
import json, os, pathlib, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
log = pathlib.Path({log!r})
with open(log, "a") as file:
    file.write(f"{{index}}\\n")
starts = log.read_text().count(str(index))
{body}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "_LONGEST_PAUSE", 0.1)


def started(tmp_path, body, **settings):
    """Runs `cluster train`; returns how often each worker was started."""
    log = tmp_path / "log"
    program = (sys.executable, "-c", WORKER.format(log=str(log), body=body))
    settings = {"workers": 2, "runs_dir": str(tmp_path), "run": "run"} | settings
    try:
        cluster.run(["train"], config.Config.of(**settings), program)
    finally:
        lines = log.read_text().split()
        starts = [lines.count(str(index)) for index in range(settings["workers"])]
        (tmp_path / "starts").write_text(str(starts))
    return starts


def test_workers_that_succeed_run_once(tmp_path):
    assert started(tmp_path, "", workers=3) == [1, 1, 1]


def test_all_start_again_if_one_fails(tmp_path, capsys):
    body = "if index == 1 and starts == 1: os.kill(os.getpid(), 9)\nif starts == 1: time.sleep(60)"
    assert started(tmp_path, body) == [2, 2]
    assert "worker 1 was killed by SIGKILL; all workers start" in captured_warning(capsys)


def captured_warning(capsys):
    captured = capsys.readouterr()
    return (
        (captured.out + captured.err)
        .replace(", worker 0 was killed by SIGKILL", "")
        .replace("worker 0 was killed by SIGKILL, ", "")
    )


def test_they_do_not_start_again_without_end(tmp_path):
    with pytest.raises(errors.RunError, match="failed 3 times in a row without a new checkpoint"):
        started(tmp_path, "sys.exit(1)", restarts=2)
    assert (tmp_path / "starts").read_text() == "[3, 3]"


def test_a_new_checkpoint_counts_as_progress(tmp_path):
    body = f"""
if index == 0:
    pathlib.Path({str(tmp_path)!r}, "run/checkpoints/phase1", f"{{starts:08d}}").mkdir(parents=True)
sys.exit(starts < 5)"""
    body = body.replace("{starts:08d}", "{starts:08d}")
    assert started(tmp_path, body, restarts=1) == [5, 5]


def test_wrong_flags_are_not_tried_again(tmp_path):
    with pytest.raises(errors.UsageError, match="refused the settings"):
        started(tmp_path, "sys.exit(2)")
    assert (tmp_path / "starts").read_text() == "[1, 1]"


def test_workers_that_were_stopped_do_not_start_again(tmp_path):
    with pytest.raises(errors.Stopped):
        started(tmp_path, "sys.exit(143)")


def test_a_signal_is_passed_on(tmp_path, monkeypatch):
    requested = iter([False] * 5)
    monkeypatch.setattr(stop_signals, "requested", lambda: next(requested, True))
    body = "import signal; signal.signal(15, lambda *_: sys.exit(143)); time.sleep(60)"
    with pytest.raises(errors.Stopped):
        started(tmp_path, body)


@pytest.mark.parametrize("arguments", [[], ["evaluate"], ["train", "phase1"]])
def test_only_training_can_have_several_workers(arguments):
    with pytest.raises(errors.UsageError, match="cluster takes one of train, phase1, phase2"):
        cluster.run(arguments, config.Config.of(workers=2))


def test_one_worker_is_no_cluster():
    with pytest.raises(errors.UsageError, match="--workers=1: give 2 or more"):
        cluster.run(["train"], config.Config())
