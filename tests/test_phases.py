"""What a phase trains: the layers, the momentum of BatchNorm. Which epoch is best."""

import numpy as np
import pytest
from tensorflow.python.eager import context  # tf has no public way to see what was executed

from cnnrnn import config, errors, phases
from cnnrnn.models import network as network_lib
from cnnrnn.settings import network as network_settings
from cnnrnn.training import steps, train_state
from tests import block_network, small_network


def trained_layers(network):
    return [layer.name for layer in network.cnn.layers if layer.trainable_variables]


@pytest.mark.parametrize(
    "phase, best_by, values, expected",
    [
        (phases.PHASE1, "loss", [0.9, 0.5, 0.7], 2),
        (phases.PHASE1, "loss", [0.9, 0.5, 0.5], 2),
        (phases.PHASE1, "loss", [float("nan"), 1e30], 2),
        (phases.PHASE2, "top1", [0.1, 0.8, 0.3], 2),
        (phases.PHASE2, "top1", [0.1, 0.8, 0.8], 2),
        (phases.PHASE2, "top1", [0.0, 0.0], 1),
    ],
)
def test_the_best_epoch_is_the_first_with_the_best_value(phase, best_by, values, expected):
    """The lowest loss in phase 1, the highest top-1 in phase 2."""
    assert phase.best_by == best_by
    best, epoch = phase.worst, 0
    for number, value in enumerate(values, 1):
        if phase.is_better(value, best):
            best, epoch = value, number
    assert epoch == expected


def test_layers_before_unfreeze_from_stay_frozen_in_phase2_only():
    network = block_network.build()
    settings = config.Config.of(unfreeze_from="block2_conv2")
    phases.set_trainable(network, phases.PHASE2, settings)
    assert trained_layers(network) == ["block2_conv2", "block2_conv2_bn", "shortcut_1_Conv2D"]
    frozen = network.cnn.get_layer("block1_conv1_bn")
    assert not frozen.trainable  # in inference mode
    phases.set_trainable(network, phases.PHASE1, settings)
    assert trained_layers(network) == []
    phases.set_trainable(network, phases.PHASE2, settings.replace(phase2_batchnorm="frozen"))
    assert trained_layers(network) == ["block2_conv2", "shortcut_1_Conv2D"]
    phases.set_trainable(network, phases.PHASE2, config.Config())
    assert len(trained_layers(network)) == 7


@pytest.mark.parametrize("name", ["block9_conv1", "logits", "block1_conv1_act"])
def test_an_unknown_layer_is_an_error_that_names_the_blocks(name):
    with pytest.raises(errors.UsageError) as error:
        phases.check_layers(block_network.build(), config.Config.of(unfreeze_from=name))
    assert f"--unfreeze_from={name} is not a layer" in str(error.value)
    assert "block1_conv1, block2_conv1." in str(error.value)


def test_the_momentum_of_batchnorm_is_set_in_phase2(one_replica):
    settings = config.Config.of(batchnorm_momentum="auto", batch_size=(10, 10))
    with one_replica.scope():
        network = block_network.build()

    def momentum_after(phase, images, settings=settings):
        schedule = phases.schedule(phase, settings, images)
        train_state.create(network, phase, settings, one_replica, schedule)
        return {layer.momentum for layer in phases.batchnorm_layers(network)}

    assert momentum_after(phases.PHASE1, 5000) == {0.99}
    assert momentum_after(phases.PHASE2, 5000) == {0.98}
    assert momentum_after(phases.PHASE2, 300) == {0.9}
    given = settings.replace(batchnorm_momentum="0.95")
    assert momentum_after(phases.PHASE2, 300, given) == {0.95}


@pytest.mark.parametrize("fusion", network_settings.FUSIONS)
def test_the_cnn_is_trained_if_it_is_part_of_the_network(fusion):
    network = small_network.small_build(3, variant=network_lib.Variant(fusion))
    phases.set_trainable(network, phases.PHASE2, config.Config())
    assert network.uses_cnn == bool(trained_layers(network)) == (fusion != "rnn")
    trained = {id(variable) for variable in network.model.trainable_variables}
    has_rnn = bool(trained & {id(variable) for variable in network.rnn.weights})
    assert has_rnn == (fusion not in network_settings.WITHOUT_RNN)


@pytest.mark.parametrize("fusion, computed", [("sum", True), ("rnn", False)])
def test_phase2_does_not_compute_a_cnn_that_is_left_out(fusion, computed, one_replica):
    settings = config.Config.of(batch_size=(2, 2))
    with one_replica.scope():
        network = small_network.small_build(3, variant=network_lib.Variant(fusion))
    state = train_state.create(network, phases.PHASE2, settings, one_replica)
    options = steps.Options.of(phases.PHASE2, settings, None)
    step = steps.make_train_step(state, one_replica, 2, options)
    batch = {
        "image": np.ones((2, 64, 64, 3), np.float32),
        "sequence": np.ones((2, 23, 3887), np.float32),
        "label": np.array([0, 1]),
        "index": np.arange(2),
        "weight": np.ones(2, np.float32),
    }
    moving = network.cnn.get_layer("bn").moving_mean
    before = moving.numpy()
    context.enable_run_metadata()
    try:
        step(batch)
        executed = context.export_run_metadata().partition_graphs
    finally:
        context.disable_run_metadata()
    assert executed
    has_convolution = any("Conv2D" in node.op for graph in executed for node in graph.node)
    assert has_convolution == computed
    assert np.array_equal(moving.numpy(), before) != computed
