"""The order of the samples, the content of the batches, and errors that name an image."""

import dataclasses
import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

from cnnrnn import errors
from cnnrnn.datasets import input_pipeline, sampling, training_samples
from cnnrnn.preprocessing import augmentation
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import workers
from cnnrnn.training import feature_cache
from tests import helpers
from tests.datasets import test_tfds_builders


@pytest.fixture
def records(tmp_path):
    """The training images of a data set of TFDS, which Python code reads."""
    return test_tfds_builders.load("tfds:plain_shapes", data_dir=str(tmp_path)).train


def plain(split, seed=0):
    """Samples without random changes."""
    order = sampling.Shuffled(len(split), seed)
    return training_samples.TrainingSamples(order, views_lib.Preprocessing(), seed)


def indices(split, start, batches, batch_size=5, seed=0):
    dataset = input_pipeline.training(split, plain(split, seed), batch_size=batch_size, start=start)
    return np.concatenate([b["index"] for b in dataset.take(batches).as_numpy_iterator()])


def test_training_may_start_at_any_position_of_the_same_order(data):
    order = indices(data.train, 0, 8)
    np.testing.assert_array_equal(indices(data.train, 15, 5), order[15:])
    assert sorted(order[:18]) == list(range(18))  # no image is dropped or repeated in a pass
    assert not np.array_equal(indices(data.train, 0, 8, seed=1), order)


def test_views_and_labels_are_of_the_same_image(data):
    batch = next(
        input_pipeline.training(
            data.train, plain(data.train), batch_size=9, start=0
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


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.thorough
def test_the_shares_of_workers_are_the_batches(count, data):
    """Of training from any position, of evaluation with padding, and of numbered views."""
    augmented = dataclasses.replace(
        plain(data.train),
        augmentation=augmentation.Augmentation("flip"),
        cached_views=2,
        dropout=0.5,
        dropout_width=4,
    )

    def pipelines(share):
        yield input_pipeline.training(
            data.train, augmented, batch_size=6, start=12, share=share
        ).take(4)
        yield input_pipeline.evaluation(
            data.train, batch_size=12, preprocessing=views_lib.Preprocessing(), share=share
        )
        yield input_pipeline.views(data.train, augmented, np.arange(7), 6, share)

    shares = [pipelines(workers.Share(index, count)) for index in range(count)]
    for whole, *parts in zip(pipelines(workers.WHOLE), *shares, strict=True):
        batches = list(whole.as_numpy_iterator())
        read = [list(part.as_numpy_iterator()) for part in parts]
        assert [len(each) for each in read] == [len(batches)] * count
        for number, batch in enumerate(batches):
            for name, value in batch.items():
                joined = np.concatenate([each[number][name] for each in read])
                np.testing.assert_array_equal(joined, value)


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
@pytest.mark.thorough
def test_the_error_names_a_bad_image_and_its_class(own_data, content):
    path = own_data.train.path(0)
    with open(path, "r+b") as file:
        file.truncate(60)
        if content is not None:
            file.truncate(0)
            file.write(content)
    train = own_data.train
    dataset = input_pipeline.training(train, plain(train), batch_size=18, start=0)
    with pytest.raises(errors.RunError, match=f"{path}.*'black'") as caught:
        with input_pipeline.naming_bad_images(train, lambda: np.arange(18)):
            next(iter(dataset))
    assert "function_node" not in str(caught.value) and "[Op:" not in str(caught.value)


def test_the_error_names_a_missing_image(own_data):
    path = own_data.train.path(3)
    os.remove(path)
    train = own_data.train
    dataset = input_pipeline.training(train, plain(train), batch_size=18, start=0)
    with pytest.raises(errors.RunError, match=path):
        with input_pipeline.naming_bad_images(train, lambda: np.arange(18)):
            next(iter(dataset))


class OverlappingReads:
    """Records whose reading fails until two reads have been under way at once."""

    def __init__(self, records):
        self._records, self._both, self._have_met = records, threading.Barrier(2), False

    def __getitem__(self, index):
        if not self._have_met:
            self._both.wait(20)
            self._have_met = True
        return self._records[index]


@pytest.mark.skipif(helpers.cores() < 2, reason="needs two cores")
@pytest.mark.thorough
def test_records_are_read_in_parallel_under_op_determinism(records, monkeypatch):
    """A stateful op in the pipeline would let only one call of its function run at a time."""
    monkeypatch.setattr(records.source, "_records", OverlappingReads(records.source._records))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    tf.config.experimental.enable_op_determinism()
    try:
        assert len(indices(records, 0, 1, batch_size=4)) == 4
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
def test_no_python_function_in_the_pipeline_is_stateful(cached, records, tmp_path):
    np.save(tmp_path / "features.npy", np.zeros((len(records), 5), np.float32))
    features = feature_cache.Features([tmp_path / "features.npy"], 5) if cached else None
    ops = ops_of(
        input_pipeline.training(records, plain(records), batch_size=4, start=0, features=features)
    )
    assert "PyFuncStateless" in ops and not {"PyFunc", "EagerPyFunc"} & ops
