"""Predictions of a split: the same over replicas and batch sizes, each example exactly once."""

from tests import two_cpus  # noqa: F401

# isort: split
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


@pytest.fixture
def validation(small_config):
    return dataset_lib.load(small_config).validation


def evaluator_of(strategy, batch_size):
    with strategy.scope():
        network = small_network.small_build(3)
    eval_step = steps.make_eval_step(network, strategy)
    return predictions_lib.Evaluator(eval_step, strategy, batch_size, views_lib.Preprocessing())


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
