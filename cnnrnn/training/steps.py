"""The two functions that run on the accelerator: one training step, one evaluation step.

Both take a batch as `input_pipeline.distribute` hands it out. Gradients are summed over the
replicas by the optimizer, so each replica divides its loss by the global batch; a mean per
replica would train at N times the learning rate without any error.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from cnnrnn import metrics
from cnnrnn.models import network as network_lib
from cnnrnn.training import loss_scale as loss_scale_lib

Batch = dict[str, tf.Tensor]  # rows, image or features, label, row, weight


def make_train_step(
    network: network_lib.Network,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    global_batch: int,
    loss_scale: loss_scale_lib.LossScale | None = None,
) -> Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]:
    """Compiles one step of training.

    Args:
        network: its trainable variables are trained.
        optimizer: built.
        strategy: the one that both were made in.
        global_batch: examples per step, over all replicas.
        loss_scale: for float16: a step that overflows on any replica is left out on all.

    Returns:
        step(batch) -> (4,) sums as in `metrics.sums`, over all replicas; and () float32, how many
        replicas had a gradient that was not finite.
    """

    def compute(batch: Batch):
        """This replica's sums, whether it has a gradient that is not finite, and the gradients."""
        with tf.GradientTape() as tape:
            logits = network.logits(batch, training=True)
            scores = metrics.per_example(logits, batch["label"])
            loss = tf.reduce_sum(scores["loss"] * batch["weight"]) / global_batch
            if loss_scale is not None:
                loss *= loss_scale.scale
        gradients = tape.gradient(loss, network.model.trainable_variables)
        if loss_scale is not None:
            gradients = [gradient / loss_scale.scale for gradient in gradients]
        # A finite loss can have a gradient that is not: seen here, it is named before a
        # checkpoint of the weights it ruins can be written.
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        return metrics.sums(scores, batch["weight"]), tf.cast(~finite, tf.float32), gradients

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, network.model.trainable_variables)

    def compute_and_apply(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, bad, gradients = compute(batch)
        apply(gradients)
        return sums, bad

    def total(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    @tf.function
    def train_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, bad = strategy.run(compute_and_apply, args=(batch,))
        return total(sums), total(bad)

    @tf.function
    def scaled_train_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, bad, gradients = strategy.run(compute, args=(batch,))
        sums, bad = total(sums), total(bad)
        if bad == 0:  # the same answer for all replicas, hence outside of them
            strategy.run(apply, args=(gradients,))
        loss_scale.update(bad == 0)
        return sums, bad

    if loss_scale is not None:
        return scaled_train_step

    return train_step


def make_eval_step(
    network: network_lib.Network, strategy: tf.distribute.Strategy, *, branches: bool = False
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """Compiles one step of evaluation.

    Args:
        network: what is evaluated.
        strategy: the one that it was made in.
        branches: return what the branches put out too.

    Returns:
        step(batch) -> the global batch's "loss", "top", "top1", "top5", "probability" (B,) of the
        first of "top", "label", "index" and "weight"; with `branches`, "cnn" and "rnn" (B, 2048).
    """

    def replica_step(batch: Batch) -> dict[str, tf.Tensor]:
        cnn, rnn = network.branches(batch, training=False)
        logits = network.fusion([cnn, rnn], training=False)
        probability = tf.reduce_max(tf.nn.softmax(logits), axis=-1)
        return {
            **({"cnn": cnn, "rnn": rnn} if branches else {}),
            **metrics.per_example(logits, batch["label"]),
            "probability": probability,
            "label": batch["label"],
            "index": batch["index"],
            "weight": batch["weight"],
        }

    @tf.function
    def eval_step(batch: Batch) -> dict[str, tf.Tensor]:
        outputs = strategy.run(replica_step, args=(batch,))
        return {
            name: tf.concat(strategy.experimental_local_results(value), axis=0)
            for name, value in outputs.items()
        }

    return eval_step


def make_feature_step(
    network: network_lib.Network, strategy: tf.distribute.Strategy
) -> Callable[[Batch], tf.Tensor]:
    """Compiles one step of the CNN alone.

    Returns:
        step(batch) -> the features of the global batch, (B, 2048) float32, in its order.
    """

    def replica_step(batch: Batch) -> tf.Tensor:
        return network.cnn(batch["image"], training=False)

    @tf.function
    def feature_step(batch: Batch) -> tf.Tensor:
        features = strategy.run(replica_step, args=(batch,))
        return tf.concat(strategy.experimental_local_results(features), axis=0)

    return feature_step
