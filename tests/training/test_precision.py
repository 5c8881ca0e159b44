"""What stays float32, and float16's loss scaling."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, phases
from cnnrnn.models import network as network_lib
from cnnrnn.runs import checkpoints
from cnnrnn.training import loss_scale as loss_scale_lib
from cnnrnn.training import steps, train_state
from tests import (
    small_network,
    two_cpus,  # noqa: F401
)
from tests.training import test_steps


@pytest.fixture(scope="module")
def exact_sums(one_replica):
    """The sums of the steps in float32 by phase; each is trained once."""

    @functools.cache
    def sums(phase):
        return test_steps.train(one_replica, phase, config.Config())[1]

    return sums


@pytest.mark.parametrize(
    "precision, phase",
    [
        pytest.param("bfloat16", phases.PHASE1, marks=pytest.mark.slow),
        ("bfloat16", phases.PHASE2),
        ("float16", phases.PHASE1),
        pytest.param("float16", phases.PHASE2, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.thorough
def test_variables_features_and_logits_stay_float32_and_training_follows(
    one_replica, exact_sums, precision, phase
):
    settings = config.Config()

    def build(*args, **kwargs):
        return small_network.small_build(*args, **kwargs, precision=precision)

    network, sums = test_steps.train(one_replica, phase, settings, build)
    assert network.model.get_layer("conv").compute_dtype == precision
    assert {v.dtype for v in network.model.weights} == {"float32"}
    assert network.model.output.dtype == network.cnn.output.dtype == "float32"
    np.testing.assert_allclose(sums[:, 0], exact_sums(phase)[:, 0], rtol=5e-3)


def test_the_users_policy_comes_back():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = small_network.small_build(3)
        assert keras.config.dtype_policy().name == "mixed_float16"
        assert network.model.get_layer("conv").compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_weights_interchange_between_precisions(tmp_path):
    half, full = (
        small_network.small_build(3, seed=1, precision="bfloat16"),
        small_network.small_build(3),
    )
    half.model.save_weights(tmp_path / "half.weights.h5")
    full.model.load_weights(tmp_path / "half.weights.h5")
    for a, b in zip(half.model.get_weights(), full.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Scaled:
    """float16 training on a strategy, step by step."""

    def __init__(self, strategy, phase=phases.PHASE2, **settings):
        self.strategy = strategy
        with strategy.scope():
            self.network = small_network.small_build(
                3, synchronized_batchnorm=True, precision="float16"
            )
        settings = config.Config.of(learning_rate=(1e-3, 1e-3), **settings)
        self.train_state = train_state.create(self.network, phase, settings, strategy)
        self.optimizer, self.scale = self.train_state.optimizer, self.train_state.loss_scale
        self.average = self.train_state.average
        self._step = steps.make_train_step(self.train_state, strategy, test_steps.BATCH)

    def step(self, batch):
        return self._step(test_steps.distributed(self.strategy, batch))

    def variables(self):
        """What a step changes, but for the loss scale and the average of the weights."""
        return [*self.network.model.trainable_variables, *self.optimizer.variables]

    def state(self):
        return [np.array(v) for v in self.variables()]

    def averages(self):
        return [np.array(v) for v in self.average.trackables().values()]


@pytest.fixture(scope="module")
def training_on_two(two_replicas):
    """Phase 2 with an average of the weights, on two replicas."""
    return Scaled(two_replicas, ema=0.2)


@pytest.fixture
def training(training_on_two):
    """The same, with the scale of a start."""
    training_on_two.scale.scale.assign(loss_scale_lib.INITIAL)
    training_on_two.scale.good_steps.assign(0)
    return training_on_two


def overflowing(batch):
    """The batch with an infinite pixel in its last image, which the second replica gets."""
    rows = batch["sequence"].copy()
    rows[-1, 0, 0] = np.inf
    return {**batch, "sequence": rows}


@pytest.mark.thorough
def test_an_overflow_on_the_second_replica_is_skipped_on_both(training):
    batch = test_steps.batches(1)[0]
    training.step(batch)
    before, averages = training.state(), training.averages()
    _, bad = training.step(overflowing(batch))
    assert bad.numpy() == 0  # skipped, and the next step has a lower scale
    for a, b in zip(before + averages, training.state() + training.averages(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert training.scale.scale.numpy() == loss_scale_lib.INITIAL / 2
    assert training.scale.good_steps.numpy() == 0
    training.step(batch)
    assert any(not np.array_equal(a, b) for a, b in zip(before, training.state(), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(averages, training.averages(), strict=True))


def test_an_overflow_at_the_lowest_scale_is_counted(training):
    training.scale.scale.assign(2 * loss_scale_lib.MINIMUM)
    batch = overflowing(test_steps.batches(1)[0])
    counted = [float(training.step(batch)[1]) for _ in range(2)]
    assert counted == [0, 1]  # the first step was at twice the minimum
    assert training.step(test_steps.batches(1)[0])[1].numpy() == 0


def test_the_scale_grows_after_finite_steps_in_a_row(monkeypatch):
    monkeypatch.setattr(loss_scale_lib, "GROWTH_INTERVAL", 3)
    scale = loss_scale_lib.LossScale()
    history = []
    for finite in (True, True, False, True, True, True, True):
        scale.update(tf.constant(finite))
        history.append((scale.scale.numpy() / loss_scale_lib.INITIAL, int(scale.good_steps)))
    assert history == [(1, 1), (1, 2), (0.5, 0), (0.5, 1), (0.5, 2), (1, 0), (1, 1)]


def test_the_scale_does_not_fall_below_its_minimum():
    scale = loss_scale_lib.LossScale()
    for _ in range(15):
        assert not scale.is_at_minimum
        scale.update(tf.constant(False))
    assert scale.is_at_minimum
    scale.update(tf.constant(False))
    assert scale.scale.numpy() == loss_scale_lib.MINIMUM


@pytest.mark.thorough
def test_scaling_does_not_change_the_step(one_replica):
    """Divided out again: a step with a scale of 2**15 is that with a scale of 1."""
    training, after = Scaled(one_replica, phases.PHASE1), []
    before = training.state()
    for value in (1.0, loss_scale_lib.INITIAL):
        for variable, initial in zip(training.variables(), before, strict=True):
            variable.assign(initial)
        training.scale.scale.assign(value)
        training.step(test_steps.batches(1)[0])
        after.append(training.network.model.get_weights())
    for a, b in zip(*after, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_a_checkpoint_holds_the_scale(one_replica, tmp_path):
    training = Scaled(one_replica)
    training.scale.scale.assign(loss_scale_lib.INITIAL / 2)
    position = checkpoints.Position(phases.PHASE2)

    def saver(scale):
        state = checkpoints.State(
            training.network.model, training.optimizer, position, scale.trackables()
        )
        policy = checkpoints.SavePolicy(minutes=10.0, on_failure="stop")
        return checkpoints.Checkpoints(tmp_path, state, ("a", "b"), policy)

    first = saver(training.scale)
    first.restore()
    first.save()
    fresh = loss_scale_lib.LossScale()
    saver(fresh).restore()
    assert fresh.scale.numpy() == loss_scale_lib.INITIAL / 2


@pytest.mark.slow
def test_bfloat16_features_of_the_real_network_are_near_those_of_float32():
    """Full size, ImageNet weights where they can be had: what phase 1 trains on."""
    image = tf.random.stateless_uniform((4, 299, 299, 3), (0, 0), -1)
    rows = tf.reshape(tf.reduce_mean(image, -1), (4, 23, 3887))
    exact, half = (network_lib.build(100, precision=p) for p in ("float32", "bfloat16"))
    half.model.set_weights(exact.model.get_weights())
    outputs = []
    for network in (exact, half):
        run = tf.function(lambda image, rows, n=network: n.model({"image": image, "rows": rows}))
        outputs.append((run(image, rows).numpy(), network.cnn(image, training=False).numpy()))
    (logits, features), (half_logits, half_features) = outputs
    error = np.abs(half_features - features).mean() / np.abs(features).mean()
    print(f"bfloat16: mean relative difference of the features {error:.4f}")
    assert 0 < error < 0.03
    np.testing.assert_allclose(half_logits, logits, atol=0.03 * np.abs(logits).max())
