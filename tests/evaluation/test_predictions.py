"""Predictions of a split: the same over replicas and batch sizes, each example exactly once."""

from tests import two_cpus  # noqa: F401

# isort: split
import signal

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors, metrics
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.evaluation import branch_ablation
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.training import steps
from tests import small_network

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


@pytest.fixture
def validation(small_config):
    return dataset_lib.load(small_config).validation


def evaluator_of(strategy, batch_size):
    with strategy.scope():
        network = small_network.small_build(3)
    eval_step = steps.make_eval_step(network, strategy)
    return predictions_lib.Evaluator(eval_step, strategy, batch_size, views_lib.Preprocessing())


@pytest.mark.thorough
def test_predictions_do_not_depend_on_replicas_or_batch_size(validation, one_replica, two_replicas):
    results = []
    for strategy in (one_replica, two_replicas):
        for batch_size in (2, 4, 10):
            predictions = evaluator_of(strategy, batch_size).predict(validation, label="test")
            assert predictions.means.count == 9
            np.testing.assert_array_equal(predictions.label, validation.labels)
            results.append(predictions)
    for other in results[1:]:
        np.testing.assert_allclose(other.loss, results[0].loss, atol=1e-6)
        np.testing.assert_array_equal(other.top, results[0].top)


def test_an_example_scored_twice_is_an_error(validation, one_replica, monkeypatch):
    evaluation = input_pipeline.evaluation

    def first_example_only(split, **keywords):
        batches = evaluation(split, **keywords)
        return batches.map(lambda batch: {**batch, "index": batch["index"] * 0})

    monkeypatch.setattr(input_pipeline, "evaluation", first_example_only)
    with pytest.raises(errors.RunError, match=r"9 examples \(1 different ones\).*exactly once"):
        evaluator_of(one_replica, 3).predict(validation, label="test")


@pytest.fixture
def iterators(monkeypatch):
    """The iterators that are made."""
    distribute, made = input_pipeline.distribute, []

    def recorded(batches, strategy):
        made.append(distribute(batches, strategy))
        return made[-1]

    monkeypatch.setattr(input_pipeline, "distribute", recorded)
    return made


@pytest.mark.parametrize("replicas, batch_size", [(1, 18), (2, 4)])
@pytest.mark.thorough
def test_passes_over_one_split_share_an_iterator(
    validation, one_replica, two_replicas, iterators, replicas, batch_size
):
    """Each pass draws its own batches and no more, however they divide the 9 images."""
    evaluator = evaluator_of({1: one_replica, 2: two_replicas}[replicas], batch_size)
    first = evaluator.predict(validation, label="test")
    for _ in range(2):
        again = evaluator.predict(validation, label="test")
        for name in ("label", "top", "loss", "probability"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert len(iterators) == 1


def test_another_split_has_another_iterator(validation, small_config, one_replica, iterators):
    training = dataset_lib.load(small_config).train
    evaluator = evaluator_of(one_replica, 4)
    counts = [
        evaluator.predict(s, label="test").means.count for s in (validation, training, validation)
    ]
    assert counts == [9, 18, 9] and len(iterators) == 3


def test_a_pass_that_failed_midway_does_not_shift_the_next(validation, one_replica, iterators):
    evaluator = evaluator_of(one_replica, 2)
    complete = evaluator.predict(validation, label="test")
    step, calls = evaluator._eval_step, []

    def fails_at_the_third(batch):
        calls.append(batch)
        if len(calls) == 3:
            raise errors.Stopped(signal.SIGTERM)
        return step(batch)

    evaluator._eval_step = fails_at_the_third
    with pytest.raises(errors.Stopped):
        evaluator.predict(validation, label="test")
    again = evaluator.predict(validation, label="test")
    np.testing.assert_array_equal(again.loss, complete.loss)
    assert len(iterators) == 2


def test_running_out_of_memory_in_the_pipeline_is_not_taken_for_a_bad_image(
    validation, one_replica, monkeypatch
):
    class Exhausted:
        def __next__(self):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(input_pipeline, "distribute", lambda *_: Exhausted())
    with pytest.raises(tf.errors.ResourceExhaustedError):
        evaluator_of(one_replica, 4).predict(validation, label="test")


def test_scores_are_read_after_the_next_batch_is_launched(validation, one_replica):
    evaluator = evaluator_of(one_replica, 4)
    step, events = evaluator._eval_step, []

    class Weight:
        def __init__(self, tensor):
            self._tensor = tensor

        def numpy(self):
            events.append("read")
            return self._tensor.numpy()

    def recorded(batch):
        events.append("launch")
        outputs = step(batch)
        return {**outputs, "weight": Weight(outputs["weight"])}

    evaluator._eval_step = recorded
    evaluator.predict(validation, label="test")
    assert events == ["launch", "launch", "read", "launch", "read", "read"]


@pytest.mark.parametrize("classes", [3, 8])
def test_branch_ablation_agrees_with_the_metrics_when_logits_are_tied(classes):
    rng = np.random.default_rng(1)
    logits = rng.integers(0, 3, (400, classes)).astype(np.float32)
    label = rng.integers(0, classes, 400)
    scores = metrics.per_example(tf.constant(logits), tf.constant(label))
    loss, top1, top5 = branch_ablation.scores(logits, label)
    np.testing.assert_allclose(loss, scores["loss"], atol=1e-6)
    np.testing.assert_array_equal(top1, scores["top1"])
    np.testing.assert_array_equal(top5, scores["top5"])
