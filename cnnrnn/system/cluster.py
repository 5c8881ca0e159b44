"""The cluster: the processes that train one network together, and the strategy over them.

Each process, a worker, usually runs on a machine of its own. The scheduler says which there are:
TF_CONFIG is set by Kubernetes' TFJob, by cloud schedulers and by `cluster`; Slurm has variables of
its own. The first worker is the chief: it alone reads and writes the run folder.
"""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import time
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from cnnrnn import errors
from cnnrnn.system import progress, scheduler

_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 2.0
_REPORT_SECONDS = 30.0
_PORT_SECONDS = 30.0  # for a worker that was just killed to release its port


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers, and which of them this process is.

    Attributes:
        addresses: host:port of each worker, the chief's first.
        index: of this process.
        resolver: the same for TensorFlow.
    """

    addresses: tuple[str, ...]
    index: int
    resolver: tf.distribute.cluster_resolver.ClusterResolver

    def join(self, seconds: float) -> tf.distribute.MultiWorkerMirroredStrategy:
        """Waits for all workers; returns the strategy over them.

        The first call must come before TensorFlow's first operation.

        Args:
            seconds: how long to wait for a worker to come, and later in a collective operation for
                one that does not take part.

        Raises:
            RunError: a worker has not come, or this one cannot listen on its address.
        """
        wait_for_all(self.addresses, self.index, seconds)
        options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=seconds)
        with _signals_end_the_process():
            try:
                return tf.distribute.MultiWorkerMirroredStrategy(self.resolver, options)
            except tf.errors.OpError as error:
                raise errors.RunError(
                    f"worker {self.index} cannot join the others: {error.message.splitlines()[0]}"
                ) from error


def find(strategy: str) -> Cluster | None:
    """The cluster that this process belongs to; None for training on one machine.

    Args:
        strategy: a value of --strategy.

    Raises:
        UsageError: the scheduler's variables are not valid, or there are none although --strategy
            asks for several workers.
    """
    if strategy == "mirrored":
        return None
    if os.environ.get(scheduler.TF_CONFIG):
        cluster = _of_tf_config()
    elif int(os.environ.get(scheduler.SLURM_TASKS, "1")) > 1:
        cluster = _of_slurm()
    elif strategy == "multiworker":
        raise errors.UsageError(
            f"--strategy=multiworker needs {scheduler.TF_CONFIG} or Slurm's srun, which say which "
            "workers there are. On one machine, 'cluster train --workers=2' starts several."
        )
    else:
        return None
    return cluster if len(cluster.addresses) > 1 else None


def _of_tf_config() -> Cluster:
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        jobs, task_type, task_id = (
            resolver.cluster_spec().as_dict(),
            resolver.task_type,
            resolver.task_id,
        )
        if unknown := jobs.keys() - {"chief", "worker"}:
            raise ValueError(f"there are tasks of type {', '.join(sorted(unknown))}")
        chief = jobs.get("chief", [])
        addresses = (*chief, *jobs.get("worker", []))
        for address in addresses:
            _check_address(address)
        if task_type not in jobs or task_id not in range(len(jobs[task_type])):
            raise ValueError(f"there is no task {task_id} of type {task_type!r}")
        index = task_id + (len(chief) if task_type == "worker" else 0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise errors.UsageError(
            f"{scheduler.TF_CONFIG} is not valid ({error}): expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            "with an optional chief. --strategy=mirrored ignores it."
        ) from error
    return Cluster(addresses, index, resolver)


def _check_address(address: str) -> None:
    """Raises ValueError unless an address is host:port, as `socket` takes them."""
    if not re.fullmatch(r".+:[0-9]+", address):
        raise ValueError(f"{address!r} is not host:port")
    host, _, port = address.rpartition(":")
    if not 0 < int(port) < 2**16:
        raise ValueError(f"{address!r} has no port from 1 to 65535")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(
            f"{address!r} has a part between dots that is empty or too long"
        ) from error


def _of_slurm() -> Cluster:
    """The tasks of Slurm's srun, with ports from 8888 on each node."""
    tasks = int(os.environ[scheduler.SLURM_TASKS])
    try:
        # For the addresses only: it knows no node without GPUs, and Slurm shows each task its own.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
    except (RuntimeError, ValueError) as error:
        raise errors.UsageError(
            f"Slurm's variables are not valid ({error}): start the workers by srun, or give "
            "--strategy=mirrored."
        ) from error
    index, own = resolver.task_id, os.environ.get("SLURMD_NODENAME")
    host = addresses[index].rpartition(":")[0]
    if own and own != host:
        # It sorts nodes by name, in which n10 comes before n2. Slurm does not.
        raise errors.UsageError(
            f"task {index} of Slurm runs on {own}, and TensorFlow expects it on {host}, because it "
            f"sorts the names of the nodes: set {scheduler.TF_CONFIG} in the batch script."
        )
    os.environ[scheduler.TF_CONFIG] = scheduler.tf_config(addresses, index)
    return _of_tf_config()


def wait_for_all(addresses: tuple[str, ...], index: int, seconds: float) -> None:
    """Waits until every worker listens on its address.

    TensorFlow waits without end, in C++ code that neither a signal nor a thread can interrupt, and
    does not say for whom.

    Args:
        addresses: of all workers.
        index: of this one, which listens meanwhile.
        seconds: the limit.

    Raises:
        RunError: the time is over, or this worker cannot listen.
    """
    deadline = time.monotonic() + seconds
    reported = time.monotonic()
    missing = [i for i in range(len(addresses)) if i != index]
    with _listening(addresses[index], deadline):
        while missing := [i for i in missing if not _answers(addresses[i])]:
            named = ", ".join(f"worker {i} ({addresses[i]})" for i in missing)
            if time.monotonic() > deadline:
                raise errors.RunError(
                    f"{named} did not connect within {progress.duration(seconds)}. Start all "
                    f"{len(addresses)} workers, or give a longer --worker_timeout."
                )
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                logging.info(f"cluster: waiting for {named}")
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _listening(address: str, deadline: float) -> Iterator[None]:
    """Accepts connections on the port of an address."""
    host, _, port = address.rpartition(":")
    deadline = min(deadline, time.monotonic() + _PORT_SECONDS)
    kind = {"family": socket.AF_INET6, "dualstack_ipv6": True} if host.startswith("[") else {}
    while True:
        try:
            server = socket.create_server(("", int(port)), **kind)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise errors.RunError(
                    f"cannot listen on port {port} ({error.strerror}): end the program that uses "
                    "it, or give the worker another address."
                ) from error
            time.sleep(_POLL_SECONDS)
    with server:
        yield


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """Signals end the process at once in the block, in which Python code cannot handle them."""
    previous = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            previous[signum] = signal.signal(signum, signal.SIG_DFL)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
