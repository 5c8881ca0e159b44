"""Child processes: this program's command line, and single functions of it."""

import contextlib
import dataclasses
import math
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cnnrnn import errors
from cnnrnn.system import console, memory, progress, stop_signals
from cnnrnn.system import text as text_lib

# -P: no module is taken from the user's current folder.
PROGRAM = (sys.executable, "-P", "-m", "cnnrnn.main")

_POLL_SECONDS = 0.2
_END_SECONDS = 10  # the exit code of a child that has closed its pipe follows at once


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child process that imports the same `cnnrnn` as this one.

    Its messages name the program as those of this process do.

    The package's parent folder comes first on PYTHONPATH: with -P, Python would otherwise find
    the package only if it is installed.

    Args:
        **changes: variables to set besides.
    """
    root = str(pathlib.Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([root, inherited] if inherited else [root])
    own = {"PYTHONPATH": path, text_lib.CALLED_AS: text_lib.program()}
    return os.environ | own | changes


def run(program: Sequence[str], arguments: Sequence[str]) -> None:
    """Runs a command of this program to its end.

    A stop signal is passed on to it, once; it saves and ends, and then this process stops. A
    second one ends both.

    Args:
        program: its command line, up to the command word.
        arguments: the command word and the flags.

    Raises:
        RunError: it failed.
        Stopped: by a signal.
    """
    with stop_signals.held():
        process = subprocess.Popen(
            [*program, *arguments],
            env=environment(),
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
        told = False
        with stop_signals.ending(process.kill):
            while process.poll() is None:
                if stop_signals.requested() and not told:
                    told = True
                    process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
    if process.returncode:
        raise errors.RunError(
            f"`{shlex.join(arguments)}` ended with exit code {process.returncode}."
        )


@contextlib.contextmanager
def on_cores(index: int, count: int) -> Iterator[None]:
    """A process that is started in the block runs on its share of the cores.

    Args:
        index: of the process.
        count: of all processes.
    """
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        yield
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[index * len(cores) // count : (index + 1) * len(cores) // count]
    os.sched_setaffinity(0, own or cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@dataclasses.dataclass(frozen=True)
class Ended:
    """A child process that has ended.

    Attributes:
        answer: what the function returned; or its error if that is one of `errors`, an OSError or
            a MemoryError; None if the process ended otherwise.
        exit_code: as in `multiprocessing.Process.exitcode`.
        peak: peak memory in bytes, None if unknown.
    """

    answer: Any
    exit_code: int | None
    peak: int | None

    @property
    def how(self) -> str:
        """How it ended if there is no answer, for messages."""
        if self.exit_code == -signal.SIGKILL:
            return f"the process was killed by the system at {memory.text(self.peak)}"
        return f"ended with exit code {self.exit_code} at {memory.text(self.peak)}"


def call(function: Callable[..., Any], *arguments: Any, limit_seconds: float = math.inf) -> Ended:
    """Calls a function in a new process, which ends with this one.

    If memory runs out, the system ends that process rather than another.

    Args:
        function: of a module.
        *arguments: that can be pickled.
        limit_seconds: the process is killed after this time, and the answer is a TimeoutError.
    """
    deadline = time.monotonic() + limit_seconds
    context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()  # only the child holds it now: if the child ends, `poll` and `recv` see it
    peak, answer = None, None
    try:
        while not receiver.poll(_POLL_SECONDS):
            peak = memory.peak(process.pid) or peak  # for the message, should it be killed
            if time.monotonic() > deadline:
                raise TimeoutError(f"did not end within {progress.duration(limit_seconds)}")
        answer = receiver.recv()
    except TimeoutError as error:
        answer = error
    except EOFError:
        process.join(_END_SECONDS)
    finally:
        # At once: it has answered, has ended, or the user has stopped this process.
        process.kill()
        process.join()
    return Ended(answer, process.exitcode, peak)


def _main(
    sender: multiprocessing.connection.Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """The child process: sends what the function returns, or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and kills this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    console.install()
    try:
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # not Linux
    try:
        sender.send(function(*arguments))
    except (errors.UsageError, errors.RunError, OSError, MemoryError) as error:
        sender.send(error)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
