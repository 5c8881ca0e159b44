"""Metrics against scikit-learn, and examples of weight 0."""

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from cnnrnn import metrics


@pytest.mark.parametrize("classes", [2, 5, 6, 100])
def test_means_equal_those_of_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(64, classes)).astype(np.float32)
    label = rng.integers(0, classes, 64)
    scores = metrics.per_example(tf.constant(logits), tf.constant(label))
    means = metrics.Means.of_sums(metrics.sums(scores, tf.ones(64)).numpy())
    probability = tf.nn.softmax(logits.astype(np.float64)).numpy()
    labels = range(classes)
    loss = sklearn.metrics.log_loss(label, probability, labels=labels)
    top5 = 1.0  # with at most five classes
    if classes > 5:
        top5 = sklearn.metrics.top_k_accuracy_score(label, logits, k=5, labels=labels)
    assert means.count == 64
    assert means.loss == pytest.approx(loss, rel=1e-5)
    assert means.top1 == pytest.approx(np.mean(logits.argmax(axis=1) == label))
    assert means.top5 == pytest.approx(top5)


def test_among_equal_logits_the_lowest_index_comes_first():
    scores = metrics.per_example(tf.ones([7, 7]), tf.range(7, dtype=tf.int64))
    np.testing.assert_array_equal(scores["top"][0], range(5))
    np.testing.assert_array_equal(scores["top1"], [1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(scores["top5"], [1, 1, 1, 1, 1, 0, 0])


def test_no_numbers_of_32_bits_are_compared():
    """TensorFlow does it on the host, also those of a GPU."""
    arguments = tf.TensorSpec((4, 7), tf.float32), tf.TensorSpec((4,), tf.int64)
    graph = tf.function(metrics.per_example).get_concrete_function(*arguments).graph
    compared = [op.inputs[0].dtype for op in graph.get_operations() if op.type == "Equal"]
    assert compared == [tf.int64]


def test_an_example_of_weight_zero_does_not_count():
    scores = metrics.per_example(tf.constant([[9.0, 0.0], [0.0, 9.0]]), tf.zeros(2, tf.int64))
    totals = metrics.sums(scores, tf.constant([1.0, 0.0])).numpy()
    assert totals[1] == 1 and totals[3] == 1
    assert totals[0] < 1e-3
