import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from cnnrnn import metrics


@pytest.mark.parametrize("classes", [2, 5, 6, 100])
def test_means_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(64, classes)).astype(np.float32)
    label = rng.integers(0, classes, 64)
    scores = metrics.per_example(tf.constant(logits), tf.constant(label))
    means = metrics.Means.of_sums(metrics.sums(scores, tf.ones(64)).numpy())
    probability = tf.nn.softmax(logits.astype(np.float64)).numpy()
    everything = list(range(classes))
    assert means.count == 64
    assert means.loss == pytest.approx(
        sklearn.metrics.log_loss(label, probability, labels=everything), rel=1e-5
    )
    assert means.top1 == pytest.approx(np.mean(logits.argmax(axis=1) == label))
    if classes > 2:
        assert means.top5 == pytest.approx(
            sklearn.metrics.top_k_accuracy_score(
                label, logits, k=min(5, classes - 1) if classes > 5 else classes - 1,
                labels=everything,
            )
            if classes > 5
            else 1.0
        )  # fmt: skip


def test_an_example_of_weight_zero_does_not_count():
    scores = metrics.per_example(tf.constant([[9.0, 0.0], [0.0, 9.0]]), tf.constant([0, 0]))
    totals = metrics.sums(scores, tf.constant([1.0, 0.0])).numpy()
    assert totals[1] == 1 and totals[3] == 1
    assert totals[0] < 1e-3
