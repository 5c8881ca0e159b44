"""The order of training: permutations, balanced classes, a pure function of the position."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn.datasets import sampling
from tests import two_cpus  # noqa: F401

# Of classes with 2, 5, 1 and 3 images; class 2 has none.
LABELS = np.array([0, 1, 1, 3, 4, 4, 1, 0, 4, 1, 1])


def order_of(order, positions):
    """The indices at positions 0, 1, ... of a run, in a pipeline as in training."""
    dataset = tf.data.Dataset.range(positions).map(order.index_at)
    return next(dataset.batch(positions).as_numpy_iterator())


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 17, 100, 1000])
def test_each_pass_is_a_permutation(n):
    order = order_of(sampling.Shuffled(n, seed=4), 3 * n)
    for i in range(3):
        assert sorted(order[i * n : (i + 1) * n]) == list(range(n))
    if n >= 100:
        assert not np.array_equal(order[:n], order[n : 2 * n])
        assert not np.array_equal(order[:n], np.arange(n))


def test_the_shuffled_order_is_that_of_existing_runs():
    """It may never change, or they would resume with other images."""
    order = sampling.Shuffled(100, seed=0)
    assert order.indices_at(95, 12).tolist() == [20, 76, 38, 73, 31, 74, 21, 16, 19, 35, 64, 6]


@pytest.mark.slow
def test_no_image_is_left_out_where_the_operation_of_tensorflow_does():
    n = 4**8 + 1
    assert np.array_equal(np.sort(order_of(sampling.Shuffled(n, seed=0), n)), np.arange(n))


@pytest.mark.parametrize("name", ["shuffle", "balanced"])
def test_seeds_and_passes_do_not_repeat_after_256(name):
    """The operation uses the lowest bits alone."""
    labels = np.repeat(np.arange(10), 10)

    def start(seed, passes=0):
        order = sampling.order(name, labels, seed)
        first = passes * (100 if name == "shuffle" else 10)  # Balanced has a pass per block
        return tuple(labels[order.indices_at(first, 20)])

    starts = [start(0), start(256), start(2**20), start(0, 256), start(0, 512), start(1, 256)]
    assert len(set(starts)) == len(starts)


def test_orders_of_different_seeds_and_passes_are_uncorrelated():
    """With each other, and with the positions."""
    n = 2000
    orders = [order_of(sampling.Shuffled(n, seed), 2 * n) for seed in (0, 1)]
    series = [orders[0][:n], orders[0][n:], orders[1][:n], orders[1][n:], np.arange(n)]
    correlations = np.corrcoef(np.array(series, float))
    off_diagonal = correlations[~np.eye(len(series), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(n)


def test_a_balanced_order_has_each_class_once_in_each_block():
    blocks = LABELS[order_of(sampling.Balanced(LABELS, seed=0), 400)].reshape(100, 4)
    np.testing.assert_array_equal(np.sort(blocks), np.tile([0, 1, 3, 4], (100, 1)))
    assert len(np.unique(blocks, axis=0)) > 20  # of the 24 orders


def test_a_balanced_order_has_each_image_once_in_each_pass_over_its_class():
    order = order_of(sampling.Balanced(LABELS, seed=0), 4 * 30)
    for label, count in collections.Counter(LABELS.tolist()).items():
        passes = order[LABELS[order] == label].reshape(-1, count)
        images = np.flatnonzero(LABELS == label)
        np.testing.assert_array_equal(np.sort(passes), np.tile(images, (30 // count, 1)))
    assert len(np.unique(order[LABELS[order] == 1].reshape(-1, 5), axis=0)) > 3


def test_balanced_orders_of_seeds_and_classes_differ():
    labels = np.repeat([0, 1], 50)
    orders = [order_of(sampling.Balanced(labels, seed), 100) for seed in (0, 1)]
    first, second = (order[labels[order] == 0] for order in orders)
    other = orders[0][labels[orders[0]] == 1] - 50
    for one, two in ((first, second), (first, other), (second, other)):
        assert np.abs(np.corrcoef(one, two)[0, 1]) < 0.5
        assert not np.array_equal(one, two)


@pytest.mark.parametrize("name", ["shuffle", "balanced"])
def test_the_order_may_start_at_any_position(name):
    order = sampling.order(name, LABELS, seed=3)
    np.testing.assert_array_equal(order.indices_at(7, 30), order_of(order, 37)[7:])


@pytest.mark.parametrize("name", ["shuffle", "balanced"])
def test_visits_are_counted_for_each_image(name):
    order, seen = sampling.order(name, LABELS, seed=3), collections.Counter()
    for position, index in enumerate(order.indices_at(0, 60).tolist()):
        visits = order.visits_before(tf.constant(position, tf.int64))
        assert visits.numpy() == seen[index]
        seen[index] += 1


def test_orders_are_computed_on_the_cpu(monkeypatch):
    """The second logical CPU is the default device here, as a GPU is where there is one."""
    index_at, used = sampling.Shuffled.index_at, []

    def recorded(order, position):
        used.append(index_at(order, position).device)
        return index_at(order, position)

    monkeypatch.setattr(sampling.Shuffled, "index_at", recorded)
    order = sampling.Shuffled(5, seed=0)
    with tf.device("/CPU:1"):
        assert index_at(order, tf.constant(0, tf.int64)).device.endswith("CPU:1")
        order.indices_at(0, 2)
    assert len(used) == 2 and all(device.endswith("CPU:0") for device in used)
