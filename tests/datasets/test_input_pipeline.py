"""The order of the samples, the content of the batches, and errors that name an image."""

import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

from cnnrnn import config, errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.training import feature_cache
from tests import two_cpus  # noqa: F401


@pytest.fixture
def data(images):
    return dataset_lib.load(config.Config.of(dataset=str(images)))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The training images of a generated data set, which takes seconds to prepare."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNRNN_CACHE", str(tmp_path_factory.mktemp("digits")))
        return dataset_lib.load(config.Config.of(dataset="digits")).train


def indices(split, start, batches, batch_size=5, seed=0):
    dataset = input_pipeline.training(
        split,
        batch_size=batch_size,
        start=start,
        seed=seed,
        preprocessing=views_lib.Preprocessing(),
    )
    return np.concatenate([b["index"] for b in dataset.take(batches).as_numpy_iterator()])


def order_of(positions, n, seed):
    """The indices at positions 0, 1, ... of a run, in a pipeline as in training."""
    dataset = tf.data.Dataset.range(positions)
    dataset = dataset.map(lambda position: input_pipeline.index_at(position, n, seed))
    return next(dataset.batch(positions).as_numpy_iterator())


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 1000])
def test_each_pass_is_a_permutation(n):
    order = order_of(3 * n, n, seed=4)
    for i in range(3):
        assert sorted(order[i * n : (i + 1) * n]) == list(range(n))
    if n >= 100:
        assert not np.array_equal(order[:n], order[n : 2 * n])
        assert not np.array_equal(order[:n], np.arange(n))


def test_orders_of_different_seeds_and_passes_are_uncorrelated():
    """With each other, and with the positions."""
    n = 2000
    orders = [order_of(2 * n, n, seed) for seed in (0, 1)]
    series = [orders[0][:n], orders[0][n:], orders[1][:n], orders[1][n:], np.arange(n)]
    correlations = np.corrcoef(np.array(series, float))
    off_diagonal = correlations[~np.eye(len(series), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(n)


def test_training_may_start_at_any_position_of_the_same_order(data):
    order = indices(data.train, 0, 8)
    np.testing.assert_array_equal(indices(data.train, 15, 5), order[15:])
    assert sorted(order[:18]) == list(range(18))  # no image is dropped or repeated in a pass
    assert not np.array_equal(indices(data.train, 0, 8, seed=1), order)


def test_orders_are_computed_on_the_cpu(monkeypatch):
    """The second logical CPU is the default device here, as a GPU is where there is one."""
    index_at, used = input_pipeline.index_at, []

    def recorded(position, size, seed):
        used.append(index_at(position, size, seed).device)
        return index_at(position, size, seed)

    monkeypatch.setattr(input_pipeline, "index_at", recorded)
    with tf.device("/CPU:1"):
        assert index_at(tf.constant(0, tf.int64), 5, 0).device.endswith("CPU:1")
        input_pipeline.indices_at(0, 2, 5, seed=0)
    assert len(used) == 2 and all(device.endswith("CPU:0") for device in used)


def test_views_and_labels_are_of_the_same_image(data):
    batch = next(
        input_pipeline.training(
            data.train, batch_size=9, start=0, seed=0, preprocessing=views_lib.Preprocessing()
        ).as_numpy_iterator()
    )
    assert batch["image"].shape == (9, 299, 299, 3)
    assert batch["sequence"].shape == (9, 23, 3887)
    np.testing.assert_array_equal(batch["label"], data.train.labels[batch["index"]])
    # The classes are black, gray and white, so the label follows from the brightness.
    brightness = batch["image"].mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(np.digitize(brightness, [-0.4, 0.4]), batch["label"])
    np.testing.assert_allclose(batch["sequence"].mean(axis=(1, 2)), brightness, atol=1e-5)


def test_evaluation_has_every_example_once_and_pads_with_weight_zero(data):
    batches = list(
        input_pipeline.evaluation(
            data.validation, batch_size=4, preprocessing=views_lib.Preprocessing()
        ).as_numpy_iterator()
    )
    assert [len(batch["index"]) for batch in batches] == [4, 4, 4]
    index = np.concatenate([batch["index"] for batch in batches])
    weight = np.concatenate([batch["weight"] for batch in batches])
    np.testing.assert_array_equal(index[weight > 0], np.arange(9))
    assert weight.sum() == 9


def test_repeated_evaluation_passes_over_every_example_again(data):
    batches = input_pipeline.evaluation(
        data.validation, batch_size=4, preprocessing=views_lib.Preprocessing(), repeats=True
    )
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    drawn = list(batches.take(9).as_numpy_iterator())
    for name in ("index", "weight", "label", "image"):
        passes = np.reshape([batch[name] for batch in drawn], (3, 12, -1))
        np.testing.assert_array_equal(passes[0], passes[1])
        np.testing.assert_array_equal(passes[0], passes[2])


def test_nobody_waits_for_the_deletion_of_a_distributed_iterator():
    released, deleted = threading.Event(), threading.Event()

    class Iterator:
        def __next__(self):
            return 7

        def __del__(self):
            released.wait(20)
            deleted.set()

    iterator = input_pipeline._DeletedInBackground(Iterator())
    assert next(iterator) == 7
    del iterator
    assert not deleted.is_set()
    released.set()
    assert deleted.wait(20)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_the_error_names_a_bad_image_and_its_class(data, content):
    path = data.train.path(0)
    with open(path, "r+b") as file:
        file.truncate(60)
        if content is not None:
            file.truncate(0)
            file.write(content)
    dataset = input_pipeline.training(
        data.train, batch_size=18, start=0, seed=0, preprocessing=views_lib.Preprocessing()
    )
    with pytest.raises(tf.errors.OpError) as caught:
        next(iter(dataset))
    error = input_pipeline.decoding_error(data.train, np.arange(18), caught.value)
    assert isinstance(error, errors.RunError)
    assert path in str(error) and "'black'" in str(error)
    assert "function_node" not in str(error) and "[Op:" not in str(error)


def test_the_error_names_a_missing_image(data):
    path = data.train.path(3)
    os.remove(path)
    dataset = input_pipeline.training(
        data.train, batch_size=18, start=0, seed=0, preprocessing=views_lib.Preprocessing()
    )
    with pytest.raises(tf.errors.OpError) as caught:
        next(iter(dataset))
    assert path in str(input_pipeline.decoding_error(data.train, np.arange(18), caught.value))


class OverlappingReads:
    """Records whose reading fails unless another read is under way."""

    def __init__(self, records):
        self._records, self._both = records, threading.Barrier(2)

    def __getitem__(self, index):
        self._both.wait(20)
        return self._records[index]


def test_records_are_read_in_parallel_under_op_determinism(digits, monkeypatch):
    """A stateful op in the pipeline would let only one call of its function run at a time."""
    monkeypatch.setattr(digits.source, "_records", OverlappingReads(digits.source._records))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    tf.config.experimental.enable_op_determinism()
    try:
        assert len(indices(digits, 0, 1, batch_size=4)) == 4
    finally:
        tensorflow_config.disable_op_determinism()


def ops_of(dataset: tf.data.Dataset) -> set[str]:
    """The ops of a pipeline and of all functions in it."""
    graph = tf.compat.v1.GraphDef.FromString(
        tf.raw_ops.DatasetToGraphV2(input_dataset=tf.data.experimental.to_variant(dataset)).numpy()
    )
    functions = [function.node_def for function in graph.library.function]
    return {node.op for nodes in (graph.node, *functions) for node in nodes}


@pytest.mark.parametrize("cached", [False, True])
def test_no_python_function_in_the_pipeline_is_stateful(cached, digits, tmp_path):
    np.save(tmp_path / "features.npy", np.zeros((len(digits), 5), np.float32))
    features = feature_cache.Features([tmp_path / "features.npy"], 5) if cached else None
    ops = ops_of(
        input_pipeline.training(
            digits,
            batch_size=4,
            start=0,
            seed=0,
            preprocessing=views_lib.Preprocessing(),
            features=features,
        )
    )
    assert "PyFuncStateless" in ops and not {"PyFunc", "EagerPyFunc"} & ops
