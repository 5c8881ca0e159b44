"""`cluster`: several workers on this machine, started again together if one fails.

For trying and testing training on several machines, where a scheduler starts the workers. When one
ends, the others raise, and none can join them again: TensorFlow's collectives cannot replace a
worker. So all are ended and started again, and resume from the last checkpoint.
"""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import child_process, progress, scheduler, stop_signals

PROCESSES = "cluster: processes of the workers: "  # their ids follow
_WORDS = ("train", "phase1", "phase2")
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 20.0  # for the other workers to end by themselves after one has failed
_LONGEST_PAUSE = 60.0
_STOPPED = (errors.Stopped(signal.SIGINT).exit_code, errors.Stopped(signal.SIGTERM).exit_code)


def run(
    arguments: Sequence[str],
    config: config_lib.Config,
    program: Sequence[str] = child_process.PROGRAM,
) -> None:
    """Runs a command by several workers.

    Args:
        arguments: the command.
        config: its settings.
        program: the command line of a worker, up to the command word.

    Raises:
        UsageError: the command is not one of training, or a worker has refused the settings.
        RunError: workers have failed --restarts times in a row without a new checkpoint.
        Stopped: by a signal; the workers have saved.
    """
    if len(arguments) != 1 or arguments[0] not in _WORDS:
        raise errors.UsageError(
            f"cluster takes one of {', '.join(_WORDS)}. Received: {' '.join(arguments) or 'none'}."
        )
    if config.cluster.workers < 2:
        raise errors.UsageError(
            f"--workers={config.cluster.workers}: give 2 or more, or run {arguments[0]} itself."
        )
    command = (*program, arguments[0], *config.replace(strategy="multiworker").to_flags())
    failures = 0
    with stop_signals.held():
        while True:
            before = _checkpoints(config)
            codes = _run_together(command, config.cluster.workers)
            stop_signals.check()
            if all(code == 0 for code in codes):
                return
            _check_codes(codes)
            failures = 1 if _checkpoints(config) != before else failures + 1
            if failures > config.cluster.restarts:
                raise errors.RunError(
                    f"the workers have failed {failures} time(s) in a row"
                    f"{' without a new checkpoint' if failures > 1 else ''}: see their messages."
                )
            pause = min(2.0 ** (failures - 1), _LONGEST_PAUSE)
            logging.warning(
                f"{_described(codes)}; all workers start again in {progress.duration(pause)}"
            )
            _sleep(pause)


def _run_together(command: Sequence[str], count: int) -> list[int | None]:
    """Runs workers until all have ended. If one fails, the others are ended after a while.

    Returns:
        Their exit codes, the chief's first; None for those that had to be ended.
    """
    with contextlib.ExitStack() as stack:
        addresses = scheduler.local_addresses(count)
        workers = [
            stack.enter_context(_worker(command, addresses, index)) for index in range(count)
        ]
        logging.info(f"{PROCESSES}{' '.join(str(worker.pid) for worker in workers)}")
        deadline, stopping = None, False
        while any(worker.poll() is None for worker in workers):
            if stop_signals.requested() and not stopping:
                stopping = True
                for worker in workers:
                    worker.send_signal(signal.SIGTERM)
            # One that was stopped is no failure: the others stop, too, and the chief saves first.
            if deadline is None and any(w.poll() not in (None, 0, *_STOPPED) for w in workers):
                deadline = time.monotonic() + _GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        return [worker.poll() for worker in workers]


@contextlib.contextmanager
def _worker(command: Sequence[str], addresses: list[str], index: int) -> Iterator[subprocess.Popen]:
    """Runs a worker in the block, on cores of its own if there are enough; kills it at the end."""
    # One device each: the GPUs of a machine train as the replicas of one process.
    changes = {
        scheduler.TF_CONFIG: scheduler.tf_config(addresses, index),
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    with child_process.on_cores(index, len(addresses)):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=child_process.environment(**changes),
            start_new_session=True,  # Ctrl-C reaches this process, which passes it on
        )
    try:
        with stop_signals.ending(process.kill):
            yield process
    finally:
        process.kill()
        process.wait()


def _checkpoints(config: config_lib.Config) -> set[str]:
    return {str(path) for path in config.run_dir.glob("checkpoints/*/[0-9]*")}


def _check_codes(codes: list[int | None]) -> None:
    """Raises what ended the workers, if starting them again would not help."""
    if 2 in codes:
        raise errors.UsageError("a worker has refused the settings, see its message above.")
    if all(code in _STOPPED for code in codes if code is not None):
        raise errors.Stopped(signal.SIGTERM)


def _described(codes: list[int | None]) -> str:
    return ", ".join(
        f"worker {index} was killed by {signal.Signals(-code).name}"
        if code < 0
        else f"worker {index} ended with exit code {code}"
        for index, code in enumerate(codes)
        if code
    )


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stop_signals.check()
        time.sleep(_POLL_SECONDS)
