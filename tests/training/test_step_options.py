"""Options of the training step: two replicas against one, parts of a batch, clipping, resume."""

import dataclasses
import functools

import numpy as np
import pytest

from cnnrnn import config, phases
from cnnrnn.runs import checkpoints
from cnnrnn.training import loss_scale as loss_scale_lib
from cnnrnn.training import steps
from tests import (
    block_network,
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

# Rates at which the steps are far larger than rounding.
SETTINGS = config.Config.of(
    optimizer=("sgd", "sgd"), learning_rate=(0.1, 0.1), epochs=(4, 4), batch_size=(8, 8)
)
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0], np.float32)
ALL = {
    "optimizer": ("adamw", "adamw"),
    "learning_rate": (0.01, 0.01),
    "schedule": ("onecycle", "onecycle"),
    "clip_norm": 0.5,
    "accumulation_steps": (2, 2),
    "ema": 0.9,
    "label_smoothing": 0.1,
    "layer_decay": 0.5,
    "unfreeze_from": "block1_conv1_bn",
    "batchnorm_momentum": "auto",
}


@pytest.fixture(scope="module")
def strategies(one_replica, two_replicas):
    return {1: one_replica, 2: two_replicas}


def begin(strategy, settings, root):
    """Phase 2, and the saver of its checkpoints in a folder."""
    training = block_network.Training(
        strategy, phases.PHASE2, settings, class_weights=CLASS_WEIGHTS
    )
    state = checkpoints.State(
        training.network.model,
        training.state.optimizer,
        checkpoints.Position(phases.PHASE2),
        training.state.trackables(),
    )
    policy = checkpoints.SavePolicy(minutes=10.0, on_failure="stop")
    return training, checkpoints.Checkpoints(root, state, ("a", "b", "c"), policy)


@pytest.fixture(scope="module")
def with_all_options(two_replicas, tmp_path_factory):
    """Four steps on two replicas, the folder of a checkpoint after two of them, and the sums."""
    root = tmp_path_factory.mktemp("checkpoints")
    training, saver = begin(two_replicas, SETTINGS.replace(**ALL), root)
    data = block_network.batches(4, mixed=True)
    sums = [training.step(batch) for batch in data[:2]]
    saver.save()
    sums += [training.step(batch) for batch in data[2:]]
    return training, root, sums


def assert_near(one, two, before):
    for a, b in zip(one.variables(), two.variables(), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)
    after = one.network.model.get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1e-2


def test_two_replicas_equal_one_with_all_options(with_all_options, one_replica, tmp_path):
    two, _, sums_of_two = with_all_options
    one, _ = begin(one_replica, SETTINGS.replace(**ALL), tmp_path)
    before = one.network.model.get_weights()
    sums = [one.step(batch) for batch in block_network.batches(4, mixed=True)]
    np.testing.assert_allclose(sums, sums_of_two, rtol=1e-4)
    assert_near(one, two, before)


@pytest.mark.thorough
def test_two_replicas_equal_one_in_parts(strategies):
    """With SGD, whose steps are proportional to the gradient; BatchNorm is trained."""
    settings = SETTINGS.replace(accumulation_steps=(2, 2))
    one, two = (
        block_network.Training(strategies[count], phases.PHASE2, settings) for count in (1, 2)
    )
    before = one.network.model.get_weights()
    data = block_network.batches(4)
    sums = [[training.step(batch) for batch in data] for training in (one, two)]
    np.testing.assert_allclose(*sums, rtol=1e-4)
    assert_near(one, two, before)


def test_a_run_with_all_options_resumes_to_the_bit(with_all_options, two_replicas):
    uninterrupted, root, _ = with_all_options
    resumed, saver = begin(two_replicas, SETTINGS.replace(**ALL), root)
    assert saver.restore() is not None
    resumed.step(*block_network.batches(4, mixed=True)[2:])
    for a, b in zip(uninterrupted.variables(), resumed.variables(), strict=True):
        np.testing.assert_array_equal(a, b)


def trained(strategy, phase, settings, data):
    training = block_network.Training(strategy, phase, settings)
    sums = [training.step(batch) for batch in data]
    return training.network.model.get_weights(), sums


@pytest.mark.thorough
def test_parts_of_a_batch_equal_the_whole_where_batchnorm_is_frozen(one_replica):
    data = block_network.batches(3, mixed=True)
    weights, sums = trained(one_replica, phases.PHASE1, SETTINGS, data)
    settings = SETTINGS.replace(accumulation_steps=(4, 1))
    in_parts, sums_in_parts = trained(one_replica, phases.PHASE1, settings, data)
    np.testing.assert_allclose(sums, sums_in_parts, rtol=1e-5)
    for a, b in zip(weights, in_parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_part_is_every_kth_example(one_replica):
    """BatchNorm sees the parts: its moving mean follows that of the even, then the odd images."""
    settings = SETTINGS.replace(accumulation_steps=(2, 2), batchnorm_momentum="0.5")
    training = block_network.Training(one_replica, phases.PHASE2, settings)
    (batch,) = block_network.batches(1)
    convolution = training.network.model.get_layer("block1_conv1")
    outputs = np.array(convolution(batch["image"]))
    training.step(batch)
    means = [outputs[part::2].mean(axis=(0, 1, 2)) for part in (0, 1)]
    moving = training.network.model.get_layer("block1_conv1_bn").moving_mean
    np.testing.assert_allclose(moving, 0.25 * means[0] + 0.5 * means[1], atol=1e-6)


@pytest.fixture(scope="module")
def change(strategies):
    """The change of all weights in a step of plain SGD at a rate of 1, i.e. the gradient."""

    @functools.cache
    def changed(clip_norm, replicas=1, precision="float32"):
        settings = SETTINGS.replace(learning_rate=(1.0, 1.0), momentum=0.0, clip_norm=clip_norm)
        training = block_network.Training(
            strategies[replicas], phases.PHASE1, settings, precision=precision
        )
        variables = training.network.model.trainable_variables
        before = [np.array(variable) for variable in variables]
        training.step(*block_network.batches(1))
        changes = [np.array(new) - old for new, old in zip(variables, before, strict=True)]
        return np.concatenate([change.ravel() for change in changes])

    return changed


@pytest.mark.parametrize(
    "replicas, precision",
    [(1, "float32"), pytest.param(2, "float32", marks=pytest.mark.slow), (2, "float16")],
)
def test_the_gradient_of_all_replicas_is_clipped(replicas, precision, change):
    gradient = change(0.0)
    norm = np.linalg.norm(gradient)
    clipped = change(norm / 4, replicas, precision)
    assert np.linalg.norm(clipped) == pytest.approx(norm / 4, rel=1e-4)
    np.testing.assert_allclose(clipped, gradient / 4, atol=1e-6 if precision == "float32" else 1e-4)


def test_a_small_gradient_is_not_clipped(change):
    gradient = change(0.0)
    np.testing.assert_allclose(change(2 * np.linalg.norm(gradient)), gradient, atol=1e-7)


@pytest.mark.parametrize(
    "replicas, clip_norm, loss_scale",
    [
        *((1, 0.0, False), (2, 1.0, False), (2, 1.0, True)),
        pytest.param(2, 0.0, False, marks=pytest.mark.slow),
        pytest.param(1, 1.0, False, marks=pytest.mark.slow),
        pytest.param(1, 1.0, True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough
def test_a_gradient_whose_norm_overflows_cannot_be_clipped(
    strategies, replicas, clip_norm, loss_scale
):
    """Gradients near 1e24 are finite; their squares are not."""
    strategy = strategies[replicas]
    settings = SETTINGS.replace(clip_norm=clip_norm)
    training = block_network.Training(strategy, phases.PHASE1, settings)
    state = training.state
    if loss_scale:  # at its minimum; the network stays in float32, in which nothing else overflows
        with strategy.scope():
            state = dataclasses.replace(state, loss_scale=loss_scale_lib.LossScale())
        state.loss_scale.scale.assign(loss_scale_lib.MINIMUM)
    options = steps.Options.of(phases.PHASE1, settings)
    step = steps.make_train_step(state, strategy, block_network.BATCH, options)
    before = training.network.model.get_weights()
    (batch,) = block_network.batches(1)
    # Only in the second half, so that one of two replicas decides.
    batch["weight"][block_network.BATCH // 2 :] = 1e25
    sums, non_finite = step(block_network.distributed(strategy, batch))
    assert np.isfinite(sums[0])
    after = np.concatenate([w.ravel() for w in training.network.model.get_weights()])
    if not clip_norm:
        assert non_finite.numpy() == 0 and np.isfinite(after).all()
        return
    assert non_finite.numpy() == 1
    if loss_scale:
        np.testing.assert_array_equal(after, np.concatenate([w.ravel() for w in before]))


def test_options_come_from_the_settings_of_the_phase():
    settings = config.Config.of(accumulation_steps=(1, 4), clip_norm=2.0, label_smoothing=0.1)
    first, second = (steps.Options.of(phase, settings) for phase in phases.BY_NAME.values())
    assert (first.accumulation_steps, second.accumulation_steps) == (1, 4)
    assert first.clip_norm == 2.0 and first.loss.label_smoothing == 0.1
    assert steps.Options.of(phases.PHASE1, config.Config()) == steps.Options()
