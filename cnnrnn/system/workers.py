"""Collective operations of the workers of a cluster; with one process they cost nothing.

Every worker must call each of them, in the same order.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.system import stop_signals
from cnnrnn.system import text as text_lib

_PACK_BYTES = 64 * 2**20
_PATIENCE_SECONDS = 7 * 24 * 3600.0  # the strategy's limit cannot be taken off
_ABORTED = "Collective ops is aborted by: "
_DIGEST_WORDS = 8  # of 32 bits, in SHA-256
Variable = Any  # tf.Variable or keras.Variable


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of each global batch that a worker reads.

    Attributes:
        index: of the worker.
        count: of all workers.
    """

    index: int = 0
    count: int = 1

    def size(self, batch_size: int) -> int:
        """Examples that the worker reads of each batch of `batch_size`."""
        return batch_size // self.count

    def place(self, number: tf.Tensor, batch_size: int) -> tf.Tensor:
        """The place, among those of all workers, of the n-th example that the worker reads.

        Args:
            number: n, () int64, from 0.
            batch_size: of all workers; each reads consecutive examples of a batch.

        Returns:
            () int64, from 0.
        """
        own = self.size(batch_size)
        return number // own * batch_size + self.index * own + number % own


WHOLE = Share()


class Workers:
    """The workers that train together, seen from this one.

    Args:
        strategy: over all of them, or over the devices of this process.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.count, self.index = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            spec = strategy.cluster_resolver.cluster_spec().as_dict()
            chiefs = len(spec.get("chief", []))
            self.count = chiefs + len(spec.get("worker", []))
            is_worker = strategy.cluster_resolver.task_type == "worker"
            self.index = strategy.cluster_resolver.task_id + (chiefs if is_worker else 0)

    @property
    def is_chief(self) -> bool:
        """Whether this one reads and writes the run folder."""
        return self.index == 0

    @property
    def share(self) -> Share:
        return Share(self.index, self.count)

    def sums(self, values: np.ndarray, *, limited: bool = True) -> np.ndarray:
        """The sums of (n,) int32 over the workers.

        Args:
            values: of this worker.
            limited: whether a worker that does not come within --worker_timeout is an error.
        """
        if self.count == 1:
            return values
        summed = _sum_over(self._strategy, self.count, limited)(tf.constant(values, tf.int32))
        return self._strategy.experimental_local_results(summed)[0].numpy()

    def any(self, own: bool) -> bool:
        """Whether it is so for any worker."""
        return bool(self.sums(np.array([own], np.int32))[0])

    def of_chief(self, value: int) -> int:
        """The chief's value."""
        return int(self.sums(np.array([value if self.is_chief else 0], np.int32))[0])

    def barrier(self, *, limited: bool = True) -> None:
        """Waits until all workers are here; see `sums`."""
        self.sums(np.zeros(1, np.int32), limited=limited)

    def leave(self) -> None:
        """Waits for all workers before this one ends, which to the others would seem a failure.

        The first one that leaves may end before the others have read its last message.
        """
        with contextlib.suppress(tf.errors.OpError):
            self.barrier(limited=False)

    def check_stop(self) -> None:
        """Raises errors.Stopped on all workers if any has received a signal."""
        if self.any(stop_signals.requested()):
            stop_signals.stop()

    def differing(self, values: Mapping[str, bytes]) -> dict[str, str]:
        """The values that are not the same on all workers; every worker gets the same answer.

        Workers may come late: they can have images to check before.

        Args:
            values: by what they are, in words.

        Returns:
            Those that differ, with the numbers of the workers that do not have the chief's.
        """
        if self.count == 1:
            return {}
        table = np.zeros((self.count, len(values), _DIGEST_WORDS), np.int32)
        for i, value in enumerate(values.values()):
            table[self.index, i] = np.frombuffer(hashlib.sha256(value).digest(), np.int32)
        table = self.sums(table.ravel(), limited=False).reshape(table.shape)
        differs = (table != table[0]).any(axis=2)  # (workers, values)
        return {
            name: ", ".join(map(str, np.flatnonzero(differs[:, i])))
            for i, name in enumerate(values)
            if differs[:, i].any()
        }

    def broadcast(self, variables: Iterable[Variable]) -> None:
        """Gives all workers the chief's values of variables, bit for bit."""
        if self.count == 1:
            return
        pack, size = [], 0
        for variable in variables:
            pack.append(variable)
            size += np.asarray(variable).nbytes
            if size >= _PACK_BYTES:
                self._broadcast(pack)
                pack, size = [], 0
        if pack:
            self._broadcast(pack)

    def _broadcast(self, variables: list[Variable]) -> None:
        values = [np.asarray(variable) for variable in variables]
        bits = np.concatenate([np.ascontiguousarray(v).reshape(-1).view(np.int32) for v in values])
        bits = self.sums(bits if self.is_chief else np.zeros_like(bits))
        if self.is_chief:
            return
        ends = np.cumsum([value.nbytes // 4 for value in values])
        for variable, value, part in zip(variables, values, np.split(bits, ends[:-1]), strict=True):
            variable.assign(part.view(value.dtype).reshape(value.shape))


@functools.cache  # to be traced once
def _sum_over(strategy: tf.distribute.Strategy, workers: int, limited: bool):
    """Compiles the sum of `Workers.sums`: f((n,) int32) -> (n,) int32 of each replica."""
    seconds = None if limited else _PATIENCE_SECONDS
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=seconds)

    def add(values: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        local = replica.num_replicas_in_sync // workers
        is_first = replica.replica_id_in_sync_group % local == 0  # of its worker
        own = tf.where(is_first, values, tf.zeros_like(values))
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, own, options)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def summed(values: tf.Tensor) -> tf.Tensor:
        return strategy.run(add, args=(values,))

    return summed


@contextlib.contextmanager
def of(strategy: tf.distribute.Strategy) -> Iterator[Workers]:
    """The workers of a strategy, in a block in which failed collectives become RunError.

    Raises:
        RunError: a worker has ended, or cannot be reached, or takes no part in a step.
    """
    workers = Workers(strategy)
    try:
        yield workers
    except tf.errors.ResourceExhaustedError:  # out of memory
        raise
    except tf.errors.OpError as error:
        if workers.count == 1:
            raise
        raise errors.RunError(
            f"worker {workers.index} has lost contact with another one ({_reason(error)}). Start "
            "all workers again: training resumes from the last checkpoint."
        ) from error


def _reason(error: tf.errors.OpError) -> str:
    """What TensorFlow says of a failed collective, without the names of operations around it."""
    lines = [line.strip() for line in error.message.splitlines()]
    aborted = [line.partition(_ABORTED)[2] for line in lines if _ABORTED in line]
    return aborted[0].rstrip(":") if aborted else text_lib.first_line(error)
