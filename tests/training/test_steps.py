"""Training and evaluation steps: two replicas against one, on the same global batches."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, metrics, phases
from cnnrnn.models import network as network_lib
from cnnrnn.training import steps, train_state
from tests import (
    small_network,
    two_cpus,  # noqa: F401
)

BATCH = 8


@functools.cache
def batches(count: int, classes: int = 3, batch: int = BATCH):
    """Random batches, which cannot be written to: `copied` can."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (count, batch, 299, 299, 3)).astype(np.float32)
    made = [
        {
            "image": image[i],
            "sequence": image[i].mean(axis=-1).reshape(batch, 23, 3887),
            "label": rng.integers(0, classes, batch),
            "index": np.arange(batch),
            "weight": np.ones(batch, np.float32),
        }
        for i in range(count)
    ]
    for array in (array for each in made for array in each.values()):
        array.setflags(write=False)
    return made


def copied(batch):
    return {name: value.copy() for name, value in batch.items()}


def distributed(strategy, batch):
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch["label"]))
    return next(iter(strategy.experimental_distribute_dataset(dataset)))


def train(strategy, phase, settings, build=small_network.small_build, data=None):
    """A few steps; returns the final weights and the sums of each step."""
    data = data or batches(4)
    with strategy.scope():
        network = build(3, seed=0, synchronized_batchnorm=strategy.num_replicas_in_sync > 1)
    state = train_state.create(network, phase, settings, strategy)
    step = steps.make_train_step(state, strategy, len(data[0]["label"]))
    sums = []
    for batch in data:
        totals, bad = step(distributed(strategy, batch))
        assert bad.numpy() == 0
        sums.append(totals.numpy())
    return network, np.array(sums)


@pytest.fixture(scope="module")
def trained_on(one_replica, two_replicas):
    """`train` by the number of replicas, the phase and its BatchNorm; equal calls train once."""
    strategies = {1: one_replica, 2: two_replicas}

    @functools.cache
    def trained(replicas, phase, batchnorm):
        return train(strategies[replicas], phase, config.Config.of(phase2_batchnorm=batchnorm))

    return trained


@pytest.mark.parametrize(
    "phase, batchnorm",
    [
        (phases.PHASE1, "train"),
        (phases.PHASE2, "train"),
        pytest.param(phases.PHASE2, "frozen", marks=pytest.mark.slow),  # as in phase 1
    ],
    ids=["phase1", "phase2", "phase2 with frozen BatchNorm"],
)
@pytest.mark.thorough
def test_two_replicas_equal_one(phase, batchnorm, trained_on):
    one, sums_of_one = trained_on(1, phase, batchnorm)
    two, sums_of_two = trained_on(2, phase, batchnorm)
    np.testing.assert_allclose(sums_of_one, sums_of_two, atol=1e-5 * BATCH)
    before = small_network.small_build(3, seed=0).model.get_weights()
    moved = 0.0
    for start, a, b in zip(before, one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        moved = max(moved, np.abs(a - start).max())
    assert moved > 3e-4  # the weights that agree have been trained


def inputs_of(op: tf.Operation) -> set[tf.Operation]:
    """All operations that one waits for."""
    waiting, seen = [op], set()
    while waiting:
        op = waiting.pop()
        new = {*(tensor.op for tensor in op.inputs), *op.control_inputs} - seen
        seen |= new
        waiting += new
    return seen


def gradients_in(pack: tf.Operation) -> list[tf.Operation]:
    """The operations whose outputs a collective sums, before they are joined to one tensor."""
    waiting, found = [pack.inputs[0].op], []
    while waiting:
        op = waiting.pop()
        if op.type in ("ConcatV2", "Identity", "Reshape"):
            waiting += [tensor.op for tensor in op.inputs]
        elif op.type != "Const":  # shapes and axes
            found.append(op)
    return found


@pytest.mark.thorough
def test_a_pack_of_gradients_does_not_wait_for_later_gradients(two_replicas, monkeypatch):
    monkeypatch.setattr(steps, "_PACK_BYTES", 100)  # some of phase 1's eight gradients are larger
    with two_replicas.scope():
        network = small_network.small_build(3, seed=0, synchronized_batchnorm=True)
    state = train_state.create(network, phases.PHASE1, config.Config(), two_replicas)
    step = steps.make_train_step(state, two_replicas, BATCH)
    graph = step.get_concrete_function(distributed(two_replicas, batches(1)[0])).graph
    collectives = [op for op in graph.get_operations() if op.type.startswith("Collective")]
    for device in ("CPU:0", "CPU:1"):
        packs = [op for op in collectives if op.device.endswith(device)]
        assert [len(gradients_in(pack)) for pack in packs] == [3, 1, 1, 2, 1]
        # Both LSTM layers' weights, the second layer's first.
        early, late = gradients_in(packs[1]), gradients_in(packs[-1])
        assert inputs_of(packs[-1]).issuperset(early + late)
        assert inputs_of(packs[1]).isdisjoint(late)


@pytest.mark.slow  # quick: the packs of the graph
def test_packs_do_not_change_the_weights(trained_on, two_replicas, monkeypatch):
    one_pack, _ = trained_on(2, phases.PHASE2, "train")
    size = sum(weight.nbytes for weight in one_pack.model.get_weights())
    assert size < steps._PACK_BYTES
    monkeypatch.setattr(steps, "_PACK_BYTES", 100)
    many, _ = train(two_replicas, phases.PHASE2, config.Config())
    for a, b in zip(one_pack.model.get_weights(), many.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_moving_averages_are_the_same_on_every_replica(trained_on):
    network, _ = trained_on(2, phases.PHASE2, "train")
    norm = network.model.get_layer("bn")
    for variable, initial in ((norm.moving_mean, 0.0), (norm.moving_variance, 1.0)):
        first, second = (value.numpy() for value in variable.value.values)
        np.testing.assert_array_equal(first, second)
        assert not np.allclose(first, initial)


def test_phase1_does_not_change_the_cnn(trained_on):
    network, _ = trained_on(1, phases.PHASE1, "train")
    before = small_network.small_build(3, seed=0)
    for a, b in zip(before.cnn.get_weights(), network.cnn.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(before.model.get_weights(), network.model.get_weights(), strict=True)
    ]
    assert sum(changed) == len(changed) - len(before.cnn.get_weights())


@pytest.mark.thorough
def test_frozen_batchnorm_stays_while_the_rest_of_the_cnn_is_trained(trained_on):
    network, _ = trained_on(1, phases.PHASE2, "frozen")
    before = small_network.small_build(3, seed=0).model
    for a, b in zip(
        before.get_layer("bn").get_weights(), network.model.get_layer("bn").get_weights(),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    kernel = network.model.get_layer("conv").get_weights()[0]
    assert not np.array_equal(before.get_layer("conv").get_weights()[0], kernel)


def test_one_step_of_sgd_is_the_gradient_of_the_mean_loss(two_replicas):
    """The loss is divided by the global batch: the step equals that of plain Keras."""
    batch = batches(1)[0]
    reference = small_network.small_build(3, seed=0).model
    with tf.GradientTape() as tape:
        logits = reference({"image": batch["image"], "rows": batch["sequence"]}, training=True)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        )
    gradients = tape.gradient(loss, reference.trainable_variables)
    with two_replicas.scope():
        network = small_network.small_build(3, seed=0, synchronized_batchnorm=True)
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(network.model.trainable_variables)
    state = train_state.TrainState(network, optimizer)
    steps.make_train_step(state, two_replicas, BATCH)(distributed(two_replicas, batch))
    after = network.model.trainable_variables
    for variable, gradient, new in zip(
        reference.trainable_variables, gradients, after, strict=True
    ):
        np.testing.assert_allclose(variable - gradient, new, atol=1e-5)


@pytest.mark.slow  # quick: of a norm, in test_step_options
def test_a_non_finite_gradient_is_reported(two_replicas):
    batch = copied(batches(1)[0])
    batch["sequence"][-1, 0, 0] = np.inf  # on the second replica only
    with two_replicas.scope():
        network = small_network.small_build(3, seed=0, synchronized_batchnorm=True)
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(network.model.trainable_variables)
    step = steps.make_train_step(train_state.TrainState(network, optimizer), two_replicas, BATCH)
    _, bad = step(distributed(two_replicas, batch))
    assert bad.numpy() == 1


@pytest.mark.thorough
def test_eval_step_returns_the_whole_batch_with_its_padding(two_replicas):
    batch = copied(batches(1)[0])
    batch["weight"][-3:] = 0
    with two_replicas.scope():
        network = small_network.small_build(3)
    outputs = steps.make_eval_step(network, two_replicas)(distributed(two_replicas, batch))
    np.testing.assert_array_equal(np.sort(outputs["index"]), np.arange(BATCH))
    assert outputs["weight"].numpy().sum() == BATCH - 3
    logits = network.model({"image": batch["image"], "rows": batch["sequence"]}, training=False)
    expected = metrics.per_example(logits, tf.constant(batch["label"]))
    np.testing.assert_allclose(outputs["loss"], expected["loss"], atol=1e-6)
    np.testing.assert_allclose(
        outputs["probability"], tf.nn.softmax(logits).numpy().max(axis=-1), atol=1e-6
    )


@pytest.mark.slow
def test_two_replicas_equal_one_at_full_size(one_replica, two_replicas):
    """The real network: two steps of each phase."""
    data = batches(2, batch=4)
    for phase in (phases.PHASE1, phases.PHASE2):
        settings = config.Config()
        one, sums_of_one = train(one_replica, phase, settings, network_lib.build, data)
        two, sums_of_two = train(two_replicas, phase, settings, network_lib.build, data)
        np.testing.assert_allclose(sums_of_one[:, 0], sums_of_two[:, 0], rtol=2e-4)
        difference = max(
            np.abs(a - b).max()
            for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True)
        )
        print(f"{phase.name}: largest difference of a weight {difference:.2e}")
        assert difference < (1e-5 if phase is phases.PHASE1 else 5e-4)
