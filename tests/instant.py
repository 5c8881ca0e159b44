"""Stand-ins for steps and input pipelines, for tests of the loop around them.

A step computes nothing, and a pipeline reads no images: a phase takes only as long as
building its network.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.evaluation import predictions


def make_train_step(state, strategy, global_batch, options=None):
    """Like `steps.make_train_step`: each step counts as an update that changes no weights."""

    def step(batch, *requests):
        loss = 1 + 1 / float(state.optimizer.iterations.assign_add(1))  # it falls
        sums = np.multiply([loss, 0.5, 1.0, 1.0], global_batch)  # loss, top-1, top-5, images
        return tf.constant(sums, tf.float32), tf.constant(0.0), *requests

    return step


def make_eval_step(network, strategy, *, branches=False):
    """Like `steps.make_eval_step`, without the branches: class 0 is the most likely one of all."""
    assert not branches
    k = min(shapes.TOP_K, network.model.output.shape[-1])

    def step(batch):
        label = tf.convert_to_tensor(batch["label"])
        count = len(label)
        return {
            "loss": tf.ones(count),
            "top": tf.tile(tf.range(k)[None], [count, 1]),
            "top1": tf.cast(label == 0, tf.float32),
            "top5": tf.cast(label < k, tf.float32),
            "probability": tf.fill([count], 0.5),
            **{name: tf.convert_to_tensor(batch[name]) for name in ("label", "index", "weight")},
        }

    return step


def validation_losses(monkeypatch, losses):
    """Gives the validations of a test these mean losses, one after the other."""
    losses, predict = iter(losses), predictions.Evaluator.predict

    def predicted(*arguments, **keywords):
        found = predict(*arguments, **keywords)
        return dataclasses.replace(found, loss=np.full_like(found.loss, next(losses)))

    monkeypatch.setattr(predictions.Evaluator, "predict", predicted)


def training(split, samples, *, batch_size, start, **_) -> Iterator[dict[str, np.ndarray]]:
    """Like `input_pipeline.training`, without what is made of the images."""
    while True:
        index = samples.order.indices_at(start, batch_size)
        yield _batch(split, index, np.ones(batch_size, np.float32))
        start += batch_size


def evaluation(split, *, batch_size, repeats=False, **_) -> Iterator[dict[str, np.ndarray]]:
    """Like `input_pipeline.evaluation`, without what is made of the images."""
    while True:
        for start in range(0, len(split), batch_size):
            position = np.arange(start, start + batch_size)
            weight = (position < len(split)).astype(np.float32)
            yield _batch(split, np.where(position < len(split), position, 0), weight)
        if not repeats:
            return


def _batch(split, index, weight):
    return {"index": index, "label": split.labels[index], "weight": weight}
