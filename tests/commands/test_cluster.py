"""`cluster`: starts workers, and starts them again together if one fails."""

import sys

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import cluster
from cnnrnn.system import stop_signals

# Appends its index to a file, waits until all have started, then does what the test asks for.
WORKER = """
import json, os, pathlib, signal, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
log = pathlib.Path({log!r})
with open(log, "a") as file:
    file.write(f"{{index}}\\n")
starts = log.read_text().count(str(index))
while not all(log.read_text().count(str(i)) >= starts for i in range({workers})):
    time.sleep(0.01)
{body}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "_LONGEST_PAUSE", 0.1)


def run(folder, body, workers=2, restarts=3):
    """Runs `cluster train` with workers that execute `body`."""
    code = WORKER.format(log=str(folder / "log"), body=body, workers=workers)
    settings = config.Config.of(workers=workers, restarts=restarts, runs_dir=str(folder), run="run")
    cluster.run(["train"], settings, (sys.executable, "-c", code))


def starts(folder):
    """How often each worker was started."""
    indices = (folder / "log").read_text().split()
    return [indices.count(index) for index in sorted(set(indices))]


def test_workers_that_succeed_run_once(tmp_path):
    run(tmp_path, "", workers=3)
    assert starts(tmp_path) == [1, 1, 1]


def test_workers_get_the_command_with_its_flags_and_no_gpu(tmp_path):
    body = """
assert sys.argv[1] == "train" and os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
assert {"--strategy=multiworker", "--run=run"} <= set(sys.argv)"""
    run(tmp_path, body)
    assert starts(tmp_path) == [1, 1]


def test_all_start_again_if_one_is_killed(tmp_path, capsys):
    body = """
if starts == 1:
    os.kill(os.getpid(), signal.SIGKILL) if index == 1 else time.sleep(60)"""
    run(tmp_path, body)
    assert starts(tmp_path) == [2, 2]
    output = capsys.readouterr()
    message = "worker 1 was killed by SIGKILL; all workers start again in 1 s"
    assert message in output.out + output.err


def test_they_do_not_start_again_without_end(tmp_path):
    with pytest.raises(errors.RunError, match="failed 3 time.s. in a row without a new checkpoint"):
        run(tmp_path, "sys.exit(1)", restarts=2)
    assert starts(tmp_path) == [3, 3]


def test_a_new_checkpoint_counts_as_progress(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "phase1"
    body = f"""
if index == 0:
    pathlib.Path({str(folder)!r}, str(starts)).mkdir(parents=True)
sys.exit(starts < 5)"""
    run(tmp_path, body, restarts=1)
    assert starts(tmp_path) == [5, 5]


def test_wrong_flags_are_not_tried_again(tmp_path):
    with pytest.raises(errors.UsageError, match="refused the settings"):
        run(tmp_path, "sys.exit(2)")
    assert starts(tmp_path) == [1, 1]


def test_workers_that_were_stopped_do_not_start_again(tmp_path):
    with pytest.raises(errors.Stopped):
        run(tmp_path, "sys.exit(143)")
    assert starts(tmp_path) == [1, 1]


def test_a_chief_that_saves_for_long_is_not_killed(tmp_path):
    body = f"""
if index == 0:
    time.sleep(1.5)  # longer than after a failure
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
sys.exit(143)"""
    with pytest.raises(errors.Stopped):
        run(tmp_path, body)
    assert (tmp_path / "saved").exists()


def test_a_second_signal_ends_the_workers_too(tmp_path, monkeypatch):
    """os._exit leaves no other chance to do it."""
    to_end = []

    def requested():
        to_end.extend(stop_signals._to_end)
        return bool(to_end)

    monkeypatch.setattr(stop_signals, "requested", requested)
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(60)"
    with pytest.raises((errors.Stopped, errors.RunError)):
        run(tmp_path, body)
    assert len(to_end) >= 2 and not stop_signals._to_end


def test_a_signal_is_passed_on(tmp_path, monkeypatch):
    ready = [tmp_path / f"ready-{index}" for index in range(2)]
    monkeypatch.setattr(stop_signals, "requested", lambda: all(path.exists() for path in ready))
    body = f"""
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path({str(tmp_path)!r}, f"ready-{{index}}").touch()
time.sleep(60)"""
    with pytest.raises(errors.Stopped):
        run(tmp_path, body)


@pytest.mark.parametrize("arguments", [[], ["evaluate"], ["train", "phase1"]])
def test_only_training_can_have_several_workers(arguments):
    with pytest.raises(errors.UsageError, match="cluster takes one of train, phase1, phase2"):
        cluster.run(arguments, config.Config.of(workers=2))


def test_one_worker_is_no_cluster():
    with pytest.raises(errors.UsageError, match="--workers=1: give 2 or more"):
        cluster.run(["train"], config.Config())
