"""Collective operations of workers, by two processes; shares of a batch."""

import os
import types

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.system import shared_folder, workers
from tests import two_workers


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_shares_of_all_workers_are_the_batches(count):
    shares = [workers.Share(index, count) for index in range(count)]
    places = [
        [int(share.place(tf.constant(n, tf.int64), 8)) for n in range(16 // count)]
        for share in shares
    ]
    for batch in range(2):
        own = 8 // count
        read = [place for each in places for place in each[batch * own : (batch + 1) * own]]
        assert read == list(range(batch * 8, (batch + 1) * 8))


def test_one_process_is_the_chief_and_waits_for_nobody(one_replica, tmp_path):
    alone = workers.Workers(one_replica)
    assert (alone.count, alone.index, alone.is_chief) == (1, 0, True)
    assert alone.any(True) and not alone.any(False)
    assert alone.of_chief(7) == 7
    assert alone.differing({"flags": b"a"}) == {}
    variable = tf.Variable([1.0])
    alone.broadcast([variable])
    assert variable.numpy() == 1
    assert shared_folder.is_writer(tmp_path / "new", alone)


def test_a_worker_that_is_left_alone_leaves_no_file_behind(tmp_path):
    def has_ended():
        raise errors.RunError("worker 1 has ended")

    left = types.SimpleNamespace(count=2, index=0, of_chief=int, barrier=has_ended)
    with pytest.raises(errors.RunError):
        shared_folder.is_writer(tmp_path, left)
    assert not list(tmp_path.iterdir())


def collectives(two, folder):
    """What both workers do."""
    assert two.count == 2 and two.is_chief == (two.index == 0)
    assert two.sums(np.array([1, two.index], np.int32)).tolist() == [2, 1]
    assert two.any(two.index == 1) and not two.any(False)
    assert two.of_chief(5 + two.index) == 5

    workers._PACK_BYTES = 2**20  # in this process only
    # All bits: NaN, negative zero, integers of 64 bits, and more than one pack.
    values = [np.array([np.nan, -0.0, 1e-42], np.float32), np.array([-(2**40), 3], np.int64)]
    values.append(np.random.default_rng(0).normal(size=(600, 600)).astype(np.float32))
    values.append(np.array(np.pi))
    variables = [tf.Variable(v if two.is_chief else np.zeros_like(v)) for v in values]
    two.broadcast(variables)
    for variable, value in zip(variables, values, strict=True):
        assert variable.numpy().tobytes() == value.tobytes()

    assert two.differing({"flags": b"a", "images": b"b"}) == {}
    assert two.differing({"flags": b"a", "images": bytes(two.index)}) == {"images": "1"}

    assert shared_folder.is_writer(folder / "shared", two) == two.is_chief
    assert shared_folder.is_writer(folder / f"own-{two.index}", two)
    two.barrier()  # the other one has removed its files, too
    assert not list(folder.glob("*/.worker*"))
    print("done", flush=True)


def one_ends(two):
    if two.index == 1:
        os._exit(0)
    with pytest.raises(errors.RunError, match="worker 0 has lost contact with another one"):
        with workers.of(two._strategy):
            two.any(False)
    print("noticed", flush=True)
    os._exit(0)


def both(two, folder):
    collectives(two, folder)
    one_ends(two)


@pytest.mark.thorough
def test_two_workers_exchange_values_and_one_notices_that_the_other_has_ended(tmp_path):
    """One test, because starting the processes takes most of the time."""
    printed = two_workers.run("tests.system.test_workers", "both", tmp_path)
    assert printed == ["done\nnoticed\n", "done\n"]


@pytest.mark.parametrize(
    "message, reason",
    [
        ("Graph execution error:\n\nDetected at node x\nCollective ops is aborted by: gone\nmore",
         "gone"),
        ("something else\nmore", "something else"),
    ],
)  # fmt: skip
def test_the_reason_is_what_tensorflow_says_of_the_collective(message, reason):
    assert workers._reason(tf.errors.UnavailableError(None, None, message)) == reason
