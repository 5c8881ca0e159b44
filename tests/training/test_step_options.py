"""Options of the training step: two replicas against one, parts of a batch, clipping, resume."""

import numpy as np
import pytest

from cnnrnn import config, phases
from cnnrnn.runs import checkpoints
from cnnrnn.training import steps
from tests import (
    block_network,
    two_cpus,  # noqa: F401
)

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


OPTIONS = {
    "clip_norm": {"clip_norm": 0.1},
    "accumulation_steps": {"accumulation_steps": (2, 2)},
    "cosine": {"schedule": ("cosine", "cosine"), "warmup_epochs": (1.0, 1.0)},
    "all": ALL,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_two_replicas_equal_one(name, strategies):
    settings = SETTINGS.replace(**OPTIONS[name])
    data = block_network.batches(4, mixed=name == "all")
    sums, results = [], []
    for replicas in (1, 2):
        training = block_network.Training(
            strategies[replicas], phases.PHASE2, settings, class_weights=CLASS_WEIGHTS
        )
        before = training.network.model.get_weights()
        sums.append([training.step(batch) for batch in data])
        results.append(training)
    np.testing.assert_allclose(*sums, rtol=1e-4)
    for a, b in zip(*(training.variables() for training in results), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)
    after = results[0].network.model.get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1e-2


def trained(strategy, phase, settings, data):
    training = block_network.Training(strategy, phase, settings)
    sums = [training.step(batch) for batch in data]
    return training.network.model.get_weights(), sums


def test_parts_of_a_batch_equal_the_whole_where_batchnorm_is_frozen(one_replica):
    data = block_network.batches(3, mixed=True)
    weights, sums = trained(one_replica, phases.PHASE1, SETTINGS, data)
    for parts in (2, 8):
        settings = SETTINGS.replace(accumulation_steps=(parts, 1))
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


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_gradient_of_all_replicas_is_clipped(replicas, precision, strategies):
    """With plain SGD at a rate of 1 the change of the weights is the gradient."""
    settings = SETTINGS.replace(learning_rate=(1.0, 1.0), momentum=0.0)
    (batch,) = block_network.batches(1)

    def change(clip_norm):
        training = block_network.Training(
            strategies[replicas],
            phases.PHASE1,
            settings.replace(clip_norm=clip_norm),
            precision=precision,
        )
        variables = training.network.model.trainable_variables
        before = [np.array(variable) for variable in variables]
        training.step(batch)
        changes = [np.array(new) - old for new, old in zip(variables, before, strict=True)]
        return np.concatenate([change.ravel() for change in changes])

    free = change(0.0)
    norm = np.linalg.norm(free)
    np.testing.assert_allclose(change(norm / 4), free / 4, atol=1e-6)
    np.testing.assert_allclose(change(norm * 2), free, atol=1e-7)


def test_a_run_with_all_options_resumes_to_the_bit(strategies, tmp_path):
    settings = SETTINGS.replace(**ALL)
    data = block_network.batches(4, mixed=True)

    def begin():
        training = block_network.Training(
            strategies[2], phases.PHASE2, settings, class_weights=CLASS_WEIGHTS
        )
        state = checkpoints.State(
            training.network.model,
            training.state.optimizer,
            checkpoints.Position(phases.PHASE2),
            training.state.trackables(),
        )
        policy = checkpoints.SavePolicy(minutes=10.0, on_failure="stop")
        return training, checkpoints.Checkpoints(tmp_path, state, ("a", "b", "c"), policy)

    first, saver = begin()
    first.step(*data[:2])
    saver.save()
    first.step(*data[2:])
    second, saver = begin()
    assert saver.restore() is not None
    second.step(*data[2:])
    for a, b in zip(first.variables(), second.variables(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_options_come_from_the_settings_of_the_phase():
    settings = config.Config.of(accumulation_steps=(1, 4), clip_norm=2.0, label_smoothing=0.1)
    first, second = (steps.Options.of(phase, settings) for phase in phases.BY_NAME.values())
    assert (first.accumulation_steps, second.accumulation_steps) == (1, 4)
    assert first.clip_norm == 2.0 and first.loss.label_smoothing == 0.1
    assert steps.Options.of(phases.PHASE1, config.Config()) == steps.Options()
