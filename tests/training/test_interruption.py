"""Training in a process of its own that SIGTERM stops."""

import os
import signal
import subprocess
import sys
import time

from cnnrnn import config, phases
from cnnrnn.runs import run_folder
from tests import helpers


def test_stopped_training_saves_and_resumes(images, tmp_path):
    arguments = [
        sys.executable,
        str(helpers.REPOSITORY / "tests" / "small_network.py"),
        "phase1",
        *config.Config.of(
            dataset=str(images),
            runs_dir=str(tmp_path),
            run="run",
            xception_weights="none",
            epochs=(100_000, 1),
            batch_size=(4, 2),
        ).to_flags(),
    ]
    environment = os.environ | {"PYTHONPATH": str(helpers.REPOSITORY), "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"

    def start_and_stop(until):
        with open(log, "wb") as file:
            process = subprocess.Popen(arguments, stdout=file, stderr=file, env=environment)
        try:
            deadline = time.monotonic() + 100
            while until not in log.read_text() and time.monotonic() < deadline:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            return process.wait(30), log.read_text()
        finally:
            process.kill()

    code, output = start_and_stop("phase1 epoch 2/")
    assert code == 143 and "stopped by SIGTERM. To resume, give the same command" in output
    saved = run_folder.RunFolder(tmp_path / "run").checkpoints(phases.PHASE1)
    last = max(path.name for path in saved.iterdir())
    code, output = start_and_stop("phase1 epoch")
    assert code == 143 and f"from {saved / last}" in output
