"""`preflight`: a dry run of each phase: memory, images/s, and an estimate of the full duration.

Each phase is measured in a child process: the peak memory is that of the phase alone, and a phase
that does not fit ends its own process and not this one. This process does not import TensorFlow,
so that its memory is left to the child.
"""

import signal
from collections.abc import Callable, Sequence

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import child_process, memory, quiet_tensorflow
from cnnrnn.training import cost

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
                f"{memory.text(measured.available)} were available. Use a smaller --batch_size, "
                "or --accumulation_steps, or close other programs."
            )


class _DoesNotFitError(errors.RunError):
    """A phase ran out of memory."""


def measure_in_child(
    phase: str, config: config_lib.Config, measure: Measure = dry_run_phase
) -> cost.PhaseCost:
    """Measures a phase in a child process; see `run`."""
    ended = child_process.call(measure, phase, config)
    if isinstance(ended.answer, cost.PhaseCost):
        return ended.answer
    if isinstance(ended.answer, errors.UsageError | errors.RunError | OSError):
        raise ended.answer
    raise _ending(ended, phase, config)


def _ending(ended: child_process.Ended, phase: str, config: config_lib.Config) -> errors.RunError:
    """The error to raise if a dry run ended without a result."""
    how = ended.how
    if isinstance(ended.answer, cost.GpuMemoryError):
        how = f"it ran out of GPU memory ({ended.answer})"
    elif isinstance(ended.answer, MemoryError):
        how = f"it ran out of memory at {memory.text(ended.peak)} ({ended.answer})"
    elif ended.exit_code != -signal.SIGKILL:
        return errors.RunError(
            f"the dry run of {cost.phase_title(phase)} {how}; its messages are above."
        )
    batch_size = config.training.batch_size[cost.PHASES.index(phase)]
    return _DoesNotFitError(
        f"{cost.phase_title(phase)} at --batch_size={batch_size} does not fit: {how}. Use a "
        "smaller --batch_size, or --accumulation_steps, or close other programs."
    )


def _swaps(measured: cost.PhaseCost) -> bool:
    """Whether a dry run took more memory than was available, so that the system swapped."""
    if measured.on_gpu or measured.peak is None or measured.available is None:
        return False  # a GPU does not swap: an allocation fails
    return measured.peak > measured.available
