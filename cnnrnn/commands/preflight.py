"""`preflight`: what a run will take, found out by a few real steps before hours are spent.

Each phase is tried in a process of its own: so the peak memory is that phase's alone, and a
phase that does not fit takes down its process and not the one that tells of it. This process
does without TensorFlow, to leave the memory to the trial.
"""

import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
from collections.abc import Callable

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import memory
from cnnrnn.training import cost

Measure = Callable[[str, config_lib.Config], cost.PhaseCost]


def run(config: config_lib.Config, measure: Measure) -> None:
    """Tries both phases and prints what they take.

    Args:
        config: as for the run itself.
        measure: makes the dry run of the named phase. It is called in a new process, so it must be
            a function of a module. It raises MemoryError where memory is short.

    Raises:
        UsageError, RunError: what the run itself would raise at its start, or a phase that does
            not fit.
    """
    trials = []
    for phase in cost.PHASES:
        try:
            trials.append(_in_own_process(phase, config, measure))
        except _DoesNotFitError:
            if trials:
                print(cost.table(trials))
            raise
    print(cost.table(trials))
    for trial in trials:
        if _falls_short(trial):
            raise errors.RunError(
                f"{cost.phase_title(trial.phase)} at --batch_size={trial.batch_size} does not fit: "
                f"it took {memory.text(trial.peak)}, and {memory.text(trial.available)} were available. "
                "Give a smaller --batch_size, or close other programs."
            )


class _DoesNotFitError(errors.RunError):
    """A trial ended for want of memory."""


def _in_own_process(phase: str, config: config_lib.Config, measure: Measure) -> cost.PhaseCost:
    context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_send_trial, args=(sender, measure, phase, config), daemon=True
    )
    process.start()
    sender.close()  # now only the process holds it: its end is the end of what can be received
    peak, answer = None, None
    try:
        while not receiver.poll(0.2):
            peak = memory.peak(process.pid) or peak  # to tell it of one that is killed
        answer = receiver.recv()
    except EOFError:
        pass
    finally:
        process.join(10)
        process.kill()
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
    """What to raise when a trial ended without its result."""
    if isinstance(answer, MemoryError):
        how = f"it ran out of memory at {memory.text(peak)} ({answer})"
    elif code is not None and code == -getattr(signal, "SIGKILL", 9):
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


def _send_trial(
    sender: multiprocessing.connection.Connection,
    measure: Measure,
    phase: str,
    config: config_lib.Config,
) -> None:
    """What runs in the process of a trial."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        # If memory runs out, let the system end this process and no other.
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


def _falls_short(trial: cost.PhaseCost) -> bool:
    """Whether a trial came through only by swapping."""
    return trial.peak is not None and trial.available is not None and trial.peak > trial.available
