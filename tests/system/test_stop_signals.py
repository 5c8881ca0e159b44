"""Signals: put off within a step, final the second time, left alone where they are ignored."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from cnnrnn import config, phases
from cnnrnn.runs import run_folder
from tests import helpers

# Whoever runs the tests in the background may have them ignore signals.
DEFAULTS = """
import signal
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(signal.Signals[name], signal.SIG_DFL)
"""
PROGRAM = """
import os, signal, sys, time
from cnnrnn import errors, stop_signals
stop_signals.install()
try:
    with stop_signals.held():
        os.kill(os.getpid(), signal.{signum})
        print("finished the step", flush=True)
        {within}
    print("not reached")
except errors.Stopped as stopped:
    print("saved", stopped, flush=True)
    sys.exit(stopped.exit_code)
"""


def run(program, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", DEFAULTS + textwrap.dedent(program)],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        **kwargs,
    )


@pytest.mark.parametrize("signum, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
@pytest.mark.parametrize("within", ["stop_signals.check()", "pass"])
def test_within_a_step_a_signal_waits_for_its_end(signum, code, within):
    ended = run(PROGRAM.format(signum=signum, within=within))
    assert ended.returncode == code
    assert ended.stdout.splitlines() == ["finished the step", f"saved {signum}"]
    assert "a second signal ends at once" in ended.stderr


@pytest.mark.parametrize("signum, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_ends_at_once(signum, code):
    again = f"os.kill(os.getpid(), signal.{signum}); time.sleep(9); print('still here')"
    ended = run(PROGRAM.format(signum="SIGTERM", within=again))
    assert ended.returncode == code and ended.stdout == "finished the step\n"


def test_outside_of_a_step_a_signal_stops_where_the_program_is():
    ended = run(
        """
        import signal, sys, time
        from cnnrnn import errors, stop_signals
        stop_signals.install()
        signal.setitimer(signal.ITIMER_REAL, 60)
        signal.raise_signal(signal.SIGTERM)
        """
    )
    assert "cnnrnn.errors.Stopped: SIGTERM" in ended.stderr


def test_a_signal_that_is_ignored_stays_so():
    ended = run(
        """
        import signal
        from cnnrnn import stop_signals
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        stop_signals.install()
        signal.raise_signal(signal.SIGHUP)
        print("goes on")
        """
    )
    assert ended.stdout == "goes on\n"


def test_a_training_that_is_told_to_stop_saves_and_goes_on_later(images, tmp_path):
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

    code, said = start_and_stop("phase1 epoch 2/")
    assert code == 143 and "stopped by SIGTERM. To go on give the same command" in said
    saved = run_folder.RunFolder(tmp_path / "run").checkpoints(phases.PHASE1)
    last = max(path.name for path in saved.iterdir())
    code, said = start_and_stop("phase1 epoch")
    assert code == 143 and f"goes on from {saved / last}" in said
