"""The training loss against its definition in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import metrics
from cnnrnn.training import losses

LOGITS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
LABEL, OTHER = np.array([0, 3, 1, 2, 2]), np.array([1, 3, 0, 2, 0])
SHARE = np.array([1.0, 0.5, 0.75, 0.6, 0.9], np.float32)
WEIGHTS = np.array([0.5, 1.0, 2.0, 3.0], np.float32)
MIXED = {"label": LABEL, "other_label": OTHER, "share": SHARE}


def expected(label, smoothing, weights):
    """Cross-entropy with the smoothed distribution of a label, times its class's weight."""
    log_probability = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    target = (1 - smoothing) * np.eye(4)[label] + smoothing / 4
    return -(target * log_probability).sum(axis=1) * weights[label]


def computed(loss, batch):
    cross_entropy = metrics.per_example(tf.constant(LOGITS), tf.constant(batch["label"]))["loss"]
    return loss.per_example(cross_entropy, tf.constant(LOGITS), batch)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_each_label_counts_with_its_share_and_the_weight_of_its_class(smoothing, weights):
    loss = losses.TrainingLoss(smoothing, weights)
    factors = np.ones(4) if weights is None else weights
    first, other = (expected(label, smoothing, factors) for label in (LABEL, OTHER))
    np.testing.assert_allclose(computed(loss, {"label": LABEL}), first, rtol=1e-5)
    mixed = SHARE * first + (1 - SHARE) * other
    np.testing.assert_allclose(computed(loss, MIXED), mixed, rtol=1e-5)


def test_without_options_it_is_the_cross_entropy_itself():
    cross_entropy = tf.constant([1.0])
    loss = losses.TrainingLoss()
    assert loss.per_example(cross_entropy, tf.constant([[0.0]]), {"label": 0}) is cross_entropy
