"""The compiled functions: one training step, one evaluation step, one step of the CNN alone.

Each takes a batch from `input_pipeline.distribute`. The optimizer sums gradients over replicas, so
each replica divides its loss by the global batch size; a mean per replica would train at N times
the learning rate without any error.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import metrics, phases
from cnnrnn.models import network as network_lib
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import losses, train_state

# sequence, image or features, label, index, weight; in training also other_label and share, dropout
Batch = dict[str, tf.Tensor]
TrainStep = Callable[..., tuple[tf.Tensor, ...]]
EvalStep = Callable[[Batch], dict[str, tf.Tensor]]

# Gradients are summed over replicas in packs of at least this size, which is enough for the full
# bandwidth of a link between GPUs.
_PACK_BYTES = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class Options:
    """How a training step computes its gradient.

    Attributes:
        loss: of each example.
        clip_norm: largest norm of the gradient over all weights and replicas; 0: any.
        accumulation_steps: parts in which each replica computes its share of the batch.
    """

    loss: losses.TrainingLoss = losses.TrainingLoss()
    clip_norm: float = 0.0
    accumulation_steps: int = 1

    @classmethod
    def of(
        cls,
        phase: phases.Phase,
        config: config_lib.Config,
        class_weights: np.ndarray | None = None,
    ) -> "Options":
        """Takes a phase's options from a config; `class_weights` as in `losses.TrainingLoss`."""
        return cls(
            losses.TrainingLoss(config.augmentation.label_smoothing, class_weights),
            config.optimization.clip_norm,
            config.optimization.accumulation_steps[phase.index],
        )


def make_train_step(
    state: train_state.TrainState,
    strategy: tf.distribute.Strategy,
    global_batch: int,
    options: Options = Options(),
) -> TrainStep:
    """Compiles one training step.

    Args:
        state: updated in place.
        strategy: the one that `state` was created under.
        global_batch: examples per step, summed over all replicas.
        options: how the gradient is computed.

    Returns:
        step(batch) -> (4,) sums as in `metrics.sums`, over all replicas; and () float32, the number
        of replicas with a gradient that is not finite, or too large to be clipped, which ruins the
        weights. With a loss scale such a step is skipped on all replicas, and counted only if the
        scale is at its minimum: a lower one may help the next step.
        step(batch, requests) -> the same, and the sums of (n,) float32 over the workers of a
        cluster (see `requests`).
    """
    optimizer, loss_scale, variables = (
        state.optimizer,
        state.loss_scale,
        state.network.model.trainable_variables,
    )
    replicas = strategy.num_replicas_in_sync
    _set_gradient_sum(optimizer, replicas, options.clip_norm)
    compute = _gradient_function(state, global_batch, options.loss)

    def check(sums: tf.Tensor, gradients: list[tf.Tensor]):
        """A replica's sums, whether it has a non-finite gradient, and its unscaled gradients."""
        if loss_scale is not None:
            gradients = [gradient / loss_scale.scale for gradient in gradients]
        # A finite loss can have non-finite gradients: detected here, they stop the run before a
        # checkpoint of the weights that they ruined is written.
        finite = _are_finite(gradients, replicas if options.clip_norm else 0)
        return sums, tf.cast(~finite, tf.float32), gradients

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)
        if state.average is not None:
            state.average.update(optimizer.iterations)

    def compute_and_apply(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        sums, non_finite, gradients = check(*compute(batch))
        apply(gradients)
        return sums, non_finite

    def computed(batch: Batch):
        """What `check` returns for each replica."""
        if options.accumulation_steps == 1:
            return strategy.run(lambda batch: check(*compute(batch)), args=(batch,))
        parts = _accumulate(compute, batch, options.accumulation_steps, strategy, variables)
        return strategy.run(check, args=parts)

    def total(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    @tf.function
    def train_step(batch: Batch, requests: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        if options.accumulation_steps == 1:
            sums, non_finite = strategy.run(compute_and_apply, args=(batch,))
        else:
            sums, non_finite, gradients = computed(batch)
            strategy.run(apply, args=(gradients,))
        return total(sums), total(non_finite), *_summed(requests, strategy)

    @tf.function
    def scaled_train_step(batch: Batch, requests: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        sums, non_finite, gradients = computed(batch)
        sums, non_finite = total(sums), total(non_finite)
        if non_finite == 0:  # outside of strategy.run, so that all replicas decide the same
            strategy.run(apply, args=(gradients,))
        fatal = tf.where(loss_scale.is_at_minimum, non_finite, 0.0)  # by the scale of this step
        loss_scale.update(non_finite == 0)
        return sums, fatal, *_summed(requests, strategy)

    return train_step if loss_scale is None else scaled_train_step


def _summed(requests: tf.Tensor | None, strategy: tf.distribute.Strategy) -> tuple[tf.Tensor, ...]:
    """The sums of the workers' requests, (n,), as one output; none without requests."""
    if requests is None:
        return ()
    local = strategy.num_replicas_in_sync // workers_lib.Workers(strategy).count
    shares = strategy.run(lambda requests: requests / local, args=(requests,))
    return (strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None),)


def _are_finite(gradients: list[tf.Tensor], clipped_over: int) -> tf.Tensor:
    """() bool, whether a replica's gradients are finite, and stay so when they are clipped.

    Args:
        gradients: of one replica.
        clipped_over: the number of replicas whose gradients are summed and clipped; 0: not clipped.
    """
    if not clipped_over:
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    # Clipping makes NaN of finite gradients if the squared norm of their sum overflows. That norm
    # is at most the number of replicas times the largest one of a replica.
    return tf.math.is_finite(tf.square(tf.linalg.global_norm(gradients) * clipped_over))


def _gradient_function(
    state: train_state.TrainState, global_batch: int, training_loss: losses.TrainingLoss
) -> Callable[[Batch], tuple[tf.Tensor, list[tf.Tensor]]]:
    """Returns f(examples of a replica) -> (4,) sums, gradients times the loss scale."""
    network, loss_scale = state.network, state.loss_scale

    def compute(batch: Batch) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = network.logits(batch, training=True)
            scores = metrics.per_example(logits, batch["label"])
            scores["loss"] = training_loss.per_example(scores["loss"], logits, batch)
            loss = tf.reduce_sum(scores["loss"] * batch["weight"]) / global_batch
            if loss_scale is not None:
                loss *= loss_scale.scale
        gradients = tape.gradient(loss, network.model.trainable_variables)
        return metrics.sums(scores, batch["weight"]), gradients

    return compute


def _accumulate(
    compute: Callable[[Batch], tuple[tf.Tensor, list[tf.Tensor]]],
    batch: Batch,
    parts: int,
    strategy: tf.distribute.Strategy,
    variables: Sequence[keras.Variable],
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Adds up, on each replica, what `compute` returns for the parts of its share of a batch.

    One part is in memory at a time. Part j is every `parts`-th example from the j-th on, so that
    the parts of all replicas together are the same examples for any number of replicas. The loop is
    outside of strategy.run, because replicas cannot meet in a loop of their own, and synchronized
    BatchNorm lets them meet.
    """

    def zeros() -> tuple[tf.Tensor, list[tf.Tensor]]:
        return tf.zeros(4), [tf.zeros(variable.shape) for variable in variables]

    def add_part(batch: Batch, number: tf.Tensor, sums: tf.Tensor, gradients: list[tf.Tensor]):
        part = {
            name: tf.gather(tf.reshape(value, [-1, parts, *value.shape[1:]]), number, axis=1)
            for name, value in batch.items()
        }
        own_sums, own_gradients = compute(part)
        added = [total + own for total, own in zip(gradients, own_gradients, strict=True)]
        return sums + own_sums, added

    def body(number: tf.Tensor, sums: tf.Tensor, gradients: list[tf.Tensor]):
        return number + 1, *strategy.run(add_part, args=(batch, number, sums, gradients))

    _, sums, gradients = tf.while_loop(
        lambda number, *_: number < parts,
        body,
        (tf.constant(0), *strategy.run(zeros)),
        parallel_iterations=1,
    )
    # Outputs of a loop have no device, by which the sum over replicas would find its replicas.
    return strategy.run(
        lambda *outputs: tf.nest.map_structure(tf.identity, outputs), args=(sums, gradients)
    )


def _set_gradient_sum(
    optimizer: keras.optimizers.Optimizer, replicas: int, clip_norm: float
) -> None:
    """Sets how an optimizer sums gradients over replicas: in several collectives; then it clips.

    Keras's sums all of them as one tensor, 330 MB in phase 1, which waits for the last gradient
    and for which the first weight waits. A pack waits for its own gradients, and for earlier
    collectives, which are run in the order in which they are traced. In phase 2 with synchronized
    BatchNorm that includes the last one of the backward pass.

    Keras's global_clipnorm clips each replica's gradient before the sum, which would depend on the
    number of replicas.

    Keras offers no argument for either, hence the private method.
    """
    if replicas == 1 and not clip_norm:
        return
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=_PACK_BYTES)

    def all_reduce(pairs: list[tuple[tf.Tensor, tf.Variable]]) -> list:
        gradients, variables = map(list, zip(*pairs, strict=True))
        if replicas > 1:
            replica = tf.distribute.get_replica_context()
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients, options=options)
        if clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        return list(zip(gradients, variables, strict=True))

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
        return {name: _gathered(value, strategy) for name, value in outputs.items()}

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
        return _gathered(strategy.run(replica_step, args=(batch,)), strategy)

    return feature_step


def _gathered(value: tf.Tensor, strategy: tf.distribute.Strategy) -> tf.Tensor:
    """The values (n, ...) of all replicas and workers one after another, (N, ...)."""
    if workers_lib.Workers(strategy).count > 1:
        return strategy.gather(value, axis=0)
    return tf.concat(strategy.experimental_local_results(value), axis=0)
