"""Rates at each step, what decays, and rates that fall towards the first layers."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, errors, phases
from cnnrnn.models import cnn_branch
from cnnrnn.training import optimizers, startup_report, train_state
from tests import (
    block_network,
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


def schedule(kind, warmup_steps=0, epochs=10):
    return phases.Schedule(epochs, 8, 0.5, 4, kind, warmup_steps)


def rates(numbers):
    return np.array([optimizers.rate_at(numbers, step) for step in range(numbers.total_steps + 1)])


def test_a_constant_rate_is_a_plain_number():
    assert optimizers.learning_rate(schedule("constant")) == 0.5
    assert optimizers.rate_at(schedule("constant"), 3) == 0.5


def test_a_cosine_falls_from_the_first_step_to_0():
    found = rates(schedule("cosine"))
    np.testing.assert_allclose(found, 0.25 * (1 + np.cos(np.pi * np.arange(41) / 40)), atol=1e-6)


def test_a_warm_up_rises_linearly_from_0():
    warm = np.linspace(0, 0.5, 11)
    constant, cosine = (rates(schedule(kind, 10)) for kind in ("constant", "cosine"))
    np.testing.assert_allclose(constant[:11], warm, atol=1e-6)
    np.testing.assert_array_equal(constant[10:], np.float32(0.5))
    np.testing.assert_allclose(cosine[:11], warm, atol=1e-6)
    falling = 0.25 * (1 + np.cos(np.pi * np.arange(31) / 30))
    np.testing.assert_allclose(cosine[10:], falling, atol=1e-6)


def test_more_epochs_do_not_change_a_constant_rate_with_warm_up():
    short, long = (rates(schedule("constant", 10, epochs)) for epochs in (5, 50))
    np.testing.assert_array_equal(short, long[: len(short)])


def test_onecycle_rises_from_a_25th_in_a_quarter_of_the_steps_and_falls_to_0():
    found = rates(schedule("onecycle"))
    np.testing.assert_allclose(found[:11], np.linspace(0.02, 0.5, 11), atol=1e-6)
    assert (np.diff(found[10:]) < 0).all() and found[-1] == pytest.approx(0, abs=1e-7)


def test_onecycle_of_few_steps_is_a_cosine():
    found = rates(phases.Schedule(1, 8, 0.5, 3, "onecycle"))
    np.testing.assert_allclose(found, [0.5, 0.375, 0.125, 0], atol=1e-6)


def test_a_warm_up_without_steps_left_to_fall_is_refused():
    settings = config.Config.of(schedule=("cosine", "cosine"), warmup_epochs=(3, 2), epochs=(3, 3))
    phases.schedule(phases.PHASE2, settings, 100)
    with pytest.raises(errors.UsageError, match="--warmup_epochs=3 takes all 3 epochs"):
        phases.schedule(phases.PHASE1, settings, 100)


def test_a_fraction_of_an_epoch_of_warm_up():
    settings = config.Config.of(warmup_epochs=(0.5, 1.5), batch_size=(10, 10))
    found = [
        phases.schedule(phase, settings, 100).warmup_steps for phase in phases.BY_NAME.values()
    ]
    assert found == [5, 15]


def test_the_start_of_a_phase_reports_optimizer_and_schedule(capsys):
    settings = config.Config.of(
        optimizer=("sgd", "adamw"),
        schedule=("constant", "cosine"),
        warmup_epochs=(0, 1),
        rnn_rate_factor=(1.0, 0.1),
    )
    network = block_network.build()
    for phase in phases.BY_NAME.values():
        numbers = phases.schedule(phase, settings, 160)
        startup_report.report_phase(phase, numbers, network, settings)
    output = capsys.readouterr().out
    assert ", SGD at 0.001, " in output
    assert ", AdamW at 0.0001, RNN at 1e-05, cosine, 10 steps of warm-up, " in output
    alone = config.Config.of(fusion="cnn", rnn_rate_factor=(0.1, 0.1))
    assert "RNN" not in optimizers.describe(phases.PHASE2, numbers, alone)


@pytest.fixture(scope="module")
def strategies(one_replica, two_replicas):
    return {1: one_replica, 2: two_replicas}


@pytest.fixture
def apply(strategies):
    """Applies constant gradients in phase 2; returns the network and its weights before."""

    def applied(replicas, settings, gradient, steps=1):
        strategy = strategies[replicas]
        with strategy.scope():
            network = block_network.build()
        settings = settings.replace(batch_size=(8, 8), samples_per_epoch=(8, 8))
        numbers = phases.schedule(phases.PHASE2, settings, 8)
        state = train_state.create(network, phases.PHASE2, settings, strategy, numbers)
        variables = network.model.trainable_variables
        before = [variable.numpy() for variable in variables]

        def step():
            gradients = [tf.fill(variable.shape, gradient / replicas) for variable in variables]
            state.optimizer.apply(gradients, variables)

        run = tf.function(lambda: strategy.run(step))
        for _ in range(steps):
            run()
        return network, before

    return applied


ADAMW = config.Config.of(
    optimizer=("adamw", "adamw"), learning_rate=(0.1, 0.1), weight_decay=0.5, epochs=(8, 8)
)


@pytest.mark.parametrize(
    "replicas, layer_decay, kind",
    [(1, 1.0, "onecycle"), (1, 0.5, "constant"), (2, 1.0, "onecycle"), (2, 0.5, "onecycle")],
)
@pytest.mark.thorough
def test_kernels_decay_by_the_rate_of_their_step_and_nothing_else_does(
    replicas, layer_decay, kind, apply
):
    settings = ADAMW.replace(schedule=(kind, kind), layer_decay=layer_decay)
    network, before = apply(replicas, settings, 0.0, steps=4)
    numbers = phases.schedule(phases.PHASE2, settings.replace(batch_size=(8, 8)), 8)
    factors = optimizers.rate_factors(network, layer_decay, 1.0)
    kernels = 0
    for variable, start, factor in zip(
        network.model.trainable_variables, before, factors, strict=True
    ):
        if "kernel" in variable.path:
            kernels += 1
            left = [1 - 0.5 * factor * optimizers.rate_at(numbers, step) for step in range(4)]
            np.testing.assert_allclose(variable.numpy(), start * np.prod(left), rtol=1e-5)
        else:
            np.testing.assert_array_equal(variable.numpy(), start, variable.path)
    assert kernels == 7  # four of the CNN, two of the LSTM, that of the head


@pytest.mark.parametrize("replicas", [1, 2])
def test_layer_decay_lowers_the_updates_of_each_block(replicas, apply):
    settings = config.Config.of(
        optimizer=("sgd", "sgd"), momentum=0.0, learning_rate=(0.1, 0.1), layer_decay=0.5
    )
    network, before = apply(replicas, settings, 1.0)
    blocks = {
        variable.path: number
        for number, block in enumerate(cnn_branch.blocks(network.cnn), start=1)
        for layer in block
        for variable in layer.weights
    }
    expected = {1: 0.025, 2: 0.05, None: 0.1}
    for variable, start in zip(network.model.trainable_variables, before, strict=True):
        step = expected[blocks.get(variable.path)]
        np.testing.assert_allclose(start - variable.numpy(), step, rtol=1e-4)


def test_phase1_has_no_layer_decay(one_replica):
    with one_replica.scope():
        network = block_network.build()
    settings = config.Config.of(layer_decay=0.5)
    state = train_state.create(network, phases.PHASE1, settings, one_replica)
    assert type(state.optimizer).__name__ == "RMSprop"


@pytest.mark.parametrize("phase, optimizer", [(phases.PHASE1, "rmsprop"), (phases.PHASE2, "adam")])
@pytest.mark.thorough
def test_the_rnn_has_a_rate_of_its_own_and_nothing_else_changes(phase, optimizer, one_replica):
    def steps(factor):
        """How far each variable goes in the first step by a gradient of 1."""
        with one_replica.scope():
            network = block_network.build()
        other = 7.0  # of the other phase
        factors = (factor, other) if phase is phases.PHASE1 else (other, factor)
        settings = config.Config.of(rnn_rate_factor=factors)
        state = train_state.create(network, phase, settings, one_replica)
        assert settings.optimization.optimizer[phase.index] == optimizer
        variables = network.model.trainable_variables
        before = [variable.numpy() for variable in variables]
        state.optimizer.apply([tf.ones(variable.shape) for variable in variables], variables)
        own = {id(variable) for variable in network.rnn.trainable_variables}
        assert 0 < len(own) < len(variables)
        return [
            (id(variable) in own, start - variable.numpy())
            for variable, start in zip(variables, before, strict=True)
        ]

    for (is_rnn, plain), (_, lower) in zip(steps(1.0), steps(0.25), strict=True):
        np.testing.assert_allclose(lower, plain * (0.25 if is_rnn else 1), rtol=1e-3, atol=1e-7)


def test_the_rate_of_the_rnn_and_layer_decay_act_together(apply):
    settings = config.Config.of(
        optimizer=("sgd", "sgd"),
        momentum=0.0,
        learning_rate=(0.1, 0.1),
        layer_decay=0.5,
        rnn_rate_factor=(1.0, 0.2),
    )
    network, before = apply(1, settings, 1.0)
    rnn = {id(variable) for variable in network.rnn.weights}
    cnn = {id(variable) for variable in network.cnn.weights}
    for variable, start in zip(network.model.trainable_variables, before, strict=True):
        step = np.unique((start - variable.numpy()).round(4))
        if id(variable) in cnn:
            assert step in (np.float32(0.025), np.float32(0.05))
        else:
            assert step == np.float32(0.02 if id(variable) in rnn else 0.1)


def test_the_default_optimizers_have_the_variables_of_earlier_checkpoints(one_replica):
    with one_replica.scope():
        network = block_network.build()
    create = functools.partial(
        train_state.create, network, config=config.Config(), strategy=one_replica
    )
    for phase, slots in ((phases.PHASE1, ["velocity"]), (phases.PHASE2, ["momentum", "velocity"])):
        state = create(phase=phase)
        assert state.trackables() == {}
        trained = [v.path.replace("/", "_") for v in network.model.trainable_variables]
        names = [variable.path.split("/")[1] for variable in state.optimizer.variables]
        expected = [f"{name}_{slot}" for name in trained for slot in slots]
        assert names == ["iteration", "learning_rate", *expected]
