"""`preflight`: a dry run of each phase: memory, images/s, and an estimate of the full duration.

Each phase is measured in a child process: the peak memory is that of the phase alone, and a phase
that does not fit ends its own process and not this one. This process does not import TensorFlow,
so that its memory is left to the child.
"""

import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Sequence

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import console, memory, quiet_tensorflow
from cnnrnn.training import cost

_POLL_SECONDS = 0.2
_END_SECONDS = 10  # the exit code of a child that has closed its pipe follows at once
Measure = Callable[[str, config_lib.Config], cost.PhaseCost]


def dry_run_phase(phase: str, config: config_lib.Config) -> cost.PhaseCost:
    """The dry run of a phase; for child processes, because it imports TensorFlow."""
    quiet_tensorflow.import_tensorflow()
    from cnnrnn.system import devices
    from cnnrnn.training import dry_run

    devices.configure(deterministic=config.run.deterministic)
    return dry_run.measure(phase, config)


def run(
    arguments: Sequence[str], config: config_lib.Config, measure: Measure = dry_run_phase
) -> None:
    """Measures both phases and prints a table.

    Args:
        arguments: none.
        config: of the run in question.
        measure: makes the dry run of the named phase. It is called in a new process, so it must be
            a function of a module. It raises MemoryError if memory runs out.

    Raises:
        UsageError, RunError: training would raise it at its start, or a phase does not fit.
    """
    costs = []
    for phase in cost.PHASES:
        try:
            costs.append(measure_in_child(phase, config, measure))
        except _DoesNotFitError:
            if costs:
                print(cost.table(costs))
            raise
    print(cost.table(costs))
    for measured in costs:
        if _swaps(measured):
            raise errors.RunError(
                f"{cost.phase_title(measured.phase)} at --batch_size={measured.batch_size} does "
                f"not fit: it took {memory.text(measured.peak)}, and "
                f"{memory.text(measured.available)} were available. Give a smaller --batch_size, "
                "or close other programs."
            )


class _DoesNotFitError(errors.RunError):
    """A phase ran out of memory."""


def measure_in_child(
    phase: str, config: config_lib.Config, measure: Measure = dry_run_phase
) -> cost.PhaseCost:
    """Measures a phase in a child process; see `run`."""
    context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_child_main, args=(sender, measure, phase, config), daemon=True
    )
    process.start()
    sender.close()  # only the child holds it now: if the child ends, `poll` and `recv` see it
    peak, answer = None, None
    try:
        while not receiver.poll(_POLL_SECONDS):
            peak = memory.peak(process.pid) or peak  # for the message, should it be killed
        answer = receiver.recv()
    except EOFError:
        process.join(_END_SECONDS)
    finally:
        # At once: it has answered, has ended, or the user has stopped this process.
        process.kill()
        process.join()
    if isinstance(answer, cost.PhaseCost):
        return answer
    if isinstance(answer, errors.UsageError | errors.RunError | OSError):
        raise answer
    raise _ending(process.exitcode, answer, phase, config, peak)


def _ending(
    code: int | None,
    answer: MemoryError | None,
    phase: str,
    config: config_lib.Config,
    peak: int | None,
) -> errors.RunError:
    """The error to raise if a dry run ended without a result."""
    if isinstance(answer, MemoryError):
        how = f"it ran out of memory at {memory.text(peak)} ({answer})"
    elif code == -signal.SIGKILL:
        how = f"the process was killed by the system at {memory.text(peak)}"
    else:
        return errors.RunError(
            f"the dry run of {cost.phase_title(phase)} ended with exit code {code} at "
            f"{memory.text(peak)}; its messages are above."
        )
    batch_size = config.training.batch_size[cost.PHASES.index(phase)]
    return _DoesNotFitError(
        f"{cost.phase_title(phase)} at --batch_size={batch_size} does not fit: {how}. Give a "
        "smaller --batch_size, or close other programs."
    )


def _child_main(
    sender: multiprocessing.connection.Connection,
    measure: Measure,
    phase: str,
    config: config_lib.Config,
) -> None:
    """The child process: sends the result of `measure`, or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and kills this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    console.install()
    try:
        # If memory runs out, the system ends this process rather than another.
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # not Linux
    try:
        sender.send(measure(phase, config))
    except (errors.UsageError, errors.RunError, OSError, MemoryError) as error:
        sender.send(error)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _swaps(measured: cost.PhaseCost) -> bool:
    """Whether a dry run took more memory than was available, so that the system swapped."""
    if measured.peak is None or measured.available is None:
        return False
    return measured.peak > measured.available
