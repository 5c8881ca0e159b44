"""Stop signals: deferred within a step, immediate the second time, ignored under nohup."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from cnnrnn.system import stop_signals
from tests import helpers

# A shell that runs the tests in the background may have set signals to be ignored.
DEFAULTS = """
import signal
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(signal.Signals[name], signal.SIG_DFL)
"""
PROGRAM = """
import os, signal, sys, time
from cnnrnn import errors
from cnnrnn.system import stop_signals
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
def test_a_signal_within_a_step_is_deferred_to_its_end(signum, code, within):
    ended = run(PROGRAM.format(signum=signum, within=within))
    assert ended.returncode == code
    assert ended.stdout.splitlines() == ["finished the step", f"saved {signum}"]
    assert "a second signal stops immediately" in ended.stderr


LOST = """
import os, signal, sys
from absl import logging
from cnnrnn import errors, main
from cnnrnn.system import console, progress, stop_signals

def run(argv):
    with stop_signals.held(), progress.Progress("step", 10, "images") as bar:
        print("started", flush=True)
        sys.stdin.readline()  # until nobody reads the output any more
        {signal}
        bar._show(end="")
        try:
            stop_signals.check()
        finally:
            logging.info("saving")
            open(sys.argv[1], "w").write("saved")

main._run = run
stop_signals.install()
sys.exit(main.main(["cnnrnn"]))
"""


@pytest.mark.parametrize("signum, code", [("SIGINT", 130), ("SIGHUP", 143), ("", 143)])
def test_a_process_whose_terminal_ends_with_it_saves(signum, code, tmp_path):
    """As with `2>&1 | tee log` and Ctrl-C, of which tee dies first; '': in the background."""
    sent = f"os.kill(os.getpid(), signal.{signum})" if signum else ""
    saved = tmp_path / "saved"
    process = subprocess.Popen(
        [sys.executable, "-c", DEFAULTS + LOST.format(signal=sent), str(saved)],
        cwd=helpers.REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(60) == code
    assert saved.read_text() == "saved"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_only_commands_that_take_hours_outlive_a_log_that_cannot_be_written(tmp_path, number):
    def write(stream):
        with stop_signals.tolerating_lost_output(stream):
            raise OSError(number, os.strerror(number))

    reader, writer = os.pipe()
    with open(tmp_path / "log", "w") as log, open(reader), open(writer, "w") as pipe:
        with stop_signals.dropping_output():
            with stop_signals.held():
                write(log)
            assert not stop_signals.requested()  # it is no closed terminal
            with pytest.raises(OSError):
                write(pipe)
        with pytest.raises(OSError):
            write(log)


@pytest.mark.parametrize("signum, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_stops_immediately(signum, code):
    again = f"time.sleep(0.6); os.kill(os.getpid(), signal.{signum}); time.sleep(9); print('here')"
    ended = run(PROGRAM.format(signum="SIGTERM", within=again))
    assert ended.returncode == code and ended.stdout == "finished the step\n"


@pytest.mark.parametrize("signum, wait", [("SIGTERM", 0), ("SIGHUP", 0.6)])
def test_a_second_signal_that_means_the_same_changes_nothing(signum, wait):
    again = f"time.sleep({wait}); os.kill(os.getpid(), signal.{signum}); stop_signals.check()"
    ended = run(PROGRAM.format(signum="SIGINT", within=again))
    assert ended.returncode == 130 and "saved SIGINT" in ended.stdout


def test_a_signal_outside_of_a_step_stops_immediately():
    ended = run(
        """
        import signal, sys, time
        from cnnrnn import errors
        from cnnrnn.system import stop_signals
        stop_signals.install()
        signal.setitimer(signal.ITIMER_REAL, 60)
        signal.raise_signal(signal.SIGTERM)
        """
    )
    assert "cnnrnn.errors.Stopped: SIGTERM" in ended.stderr


def test_an_ignored_signal_stays_ignored():
    ended = run(
        """
        import signal
        from cnnrnn.system import stop_signals
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        stop_signals.install()
        signal.raise_signal(signal.SIGHUP)
        print("still running")
        """
    )
    assert ended.stdout == "still running\n"
