"""What a phase trains: the layers, the momentum of BatchNorm."""

import pytest

from cnnrnn import config, errors, phases
from cnnrnn.training import train_state
from tests import block_network


def trained_layers(network):
    return [layer.name for layer in network.cnn.layers if layer.trainable_variables]


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
