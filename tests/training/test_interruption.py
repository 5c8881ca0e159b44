"""Training in a process of its own that SIGTERM stops, and that another process resumes."""

import os
import signal
import subprocess
import time

import pytest

from cnnrnn import errors, phases
from cnnrnn.commands import train
from cnnrnn.runs import run_folder
from cnnrnn.training import steps
from tests import helpers


@pytest.mark.thorough
def test_stopped_training_saves_and_resumes(small_config, small_network, monkeypatch, capsys):
    settings = small_config.replace(epochs=(100_000, 1))
    arguments = [*helpers.SMALL_PROGRAM, "phase1", *settings.to_flags()]
    environment = os.environ | {"PYTHONPATH": str(helpers.REPOSITORY), "PYTHONUNBUFFERED": "1"}
    log = settings.run_dir.parent.with_name("log")
    with open(log, "wb") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=file, env=environment)
    try:
        deadline = time.monotonic() + 100
        while "phase1 epoch 2/" not in log.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code, output = process.wait(30), log.read_text()
    finally:
        process.kill()
    assert code == 143 and "stopped by SIGTERM. To resume, give the same command" in output
    saved = run_folder.RunFolder(settings.run_dir).checkpoints(phases.PHASE1)
    last = max(path.name for path in saved.iterdir())

    def stop(_):
        raise errors.Stopped(signal.SIGTERM)

    monkeypatch.setattr(steps, "make_train_step", lambda *_: stop)
    with pytest.raises(errors.Stopped):
        train.phase1((), settings)
    assert f"phase1: resumes from {saved / last}, " in capsys.readouterr().out
