"""The compiled functions: one training step, one evaluation step, one step of the CNN alone.

Each takes a batch from `input_pipeline.distribute`. The optimizer sums gradients over replicas, so
each replica divides its loss by the global batch size; a mean per replica would train at N times
the learning rate without any error.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from cnnrnn import metrics
from cnnrnn.models import network as network_lib
from cnnrnn.training import train_state

Batch = dict[str, tf.Tensor]  # sequence, image or features, label, index, weight
TrainStep = Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]
EvalStep = Callable[[Batch], dict[str, tf.Tensor]]

# Gradients are summed over replicas in packs of at least this size, which is enough for the full
# bandwidth of a link between GPUs.
_PACK_BYTES = 32 * 2**20


def make_train_step(
    state: train_state.TrainState, strategy: tf.distribute.Strategy, global_batch: int
) -> TrainStep:
    """Compiles one training step.

    Args:
        state: updated in place.
        strategy: the one that `state` was created under.
        global_batch: examples per step, summed over all replicas.

    Returns:
        step(batch) -> (4,) sums as in `metrics.sums`, over all replicas; and () float32, the number
        of replicas with a gradient that is not finite, which ruins the weights. With a loss scale
        such a step is skipped on all replicas, and counted only if the scale is at its minimum: a
        lower one may help the next step.
    """
    network, optimizer, loss_scale = state.network, state.optimizer, state.loss_scale
    if strategy.num_replicas_in_sync > 1:
        _sum_gradients_in_packs(optimizer)

    def compute(batch: Batch):
        """This replica's sums, whether it has a non-finite gradient, and its gradients."""
        with tf.GradientTape() as tape:
            logits = network.logits(batch, training=True)
            scores = metrics.per_example(logits, batch["label"])
            loss = tf.reduce_sum(scores["loss"] * batch["weight"]) / global_batch
            if loss_scale is not None:
                loss *= loss_scale.scale
        gradients = tape.gradient(loss, network.model.trainable_variables)
        if loss_scale is not None:
            gradients = [gradient / loss_scale.scale for gradient in gradients]
        # A finite loss can have non-finite gradients: detected here, they stop the run before a
        # checkpoint of the weights that they ruined is written.
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        return metrics.sums(scores, batch["weight"]), tf.cast(~finite, tf.float32), gradients

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, network.model.trainable_variables)

    def compute_and_apply(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, non_finite, gradients = compute(batch)
        apply(gradients)
        return sums, non_finite

    def total(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    @tf.function
    def train_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, non_finite = strategy.run(compute_and_apply, args=(batch,))
        return total(sums), total(non_finite)

    @tf.function
    def scaled_train_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, non_finite, gradients = strategy.run(compute, args=(batch,))
        sums, non_finite = total(sums), total(non_finite)
        if non_finite == 0:  # outside of strategy.run, so that all replicas decide the same
            strategy.run(apply, args=(gradients,))
        fatal = tf.where(loss_scale.is_at_minimum, non_finite, 0.0)  # by the scale of this step
        loss_scale.update(non_finite == 0)
        return sums, fatal

    return train_step if loss_scale is None else scaled_train_step


def _sum_gradients_in_packs(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer sum gradients over replicas in several collectives instead of one.

    Keras's sums all of them as one tensor, 330 MB in phase 1, which waits for the last gradient
    and for which the first weight waits. A pack waits for its own gradients, and for earlier
    collectives, which are run in the order in which they are traced. In phase 2 with synchronized
    BatchNorm that includes the last one of the backward pass.

    Keras offers no argument for this, hence the private method; if a later version does not call
    it, the gradients are summed as one tensor again.
    """
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=_PACK_BYTES)

    def all_reduce(pairs: list[tuple[tf.Tensor, tf.Variable]]) -> list:
        gradients, variables = zip(*pairs, strict=True)
        replica = tf.distribute.get_replica_context()
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients), options=options)
        return list(zip(sums, variables, strict=True))

    optimizer._all_reduce_sum_gradients = all_reduce


def make_eval_step(
    network: network_lib.Network, strategy: tf.distribute.Strategy, *, branches: bool = False
) -> EvalStep:
    """Compiles one evaluation step.

    Args:
        network: to evaluate.
        strategy: the one that it was built under.
        branches: also return the outputs of both branches.

    Returns:
        step(batch) -> the global batch's "loss", "top", "top1", "top5" (see `metrics.per_example`),
        "probability" (B,) of the most likely class, "label", "index" and "weight"; with
        `branches`, "cnn" and "rnn" (B, 2048).
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
        step(batch) -> features of the global batch, (B, 2048) float32, in its order.
    """

    def replica_step(batch: Batch) -> tf.Tensor:
        return network.cnn(batch["image"], training=False)

    @tf.function
    def feature_step(batch: Batch) -> tf.Tensor:
        features = strategy.run(replica_step, args=(batch,))
        return tf.concat(strategy.experimental_local_results(features), axis=0)

    return feature_step
