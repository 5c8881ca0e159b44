"""The network: parameter counts, parts, trainable layers, initial weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, phases
from cnnrnn.models import cnn_branch, fusion, rnn_branch
from cnnrnn.models import network as network_lib
from tests import small_network


@pytest.fixture(scope="module")
def network():
    """The full-size network; orthogonal initial weights, which take seconds, are zeros here."""

    def zeros(self, shape, dtype=None):
        return tf.zeros(shape, dtype or "float32")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.Orthogonal, "__call__", zeros)
        return network_lib.build(100)


def test_parameter_counts(network):
    count = {layer.name: layer.count_params() for layer in network.model.layers}
    assert network.cnn.count_params() == 20_861_480
    assert count["lstm_1"] == 48_627_712
    assert count["rnn_features"] == 33_562_624
    assert count["logits"] == 204_900
    assert network.model.count_params() == 103_256_716


def test_layers_of_xception_are_found_by_name(network):
    assert network.model.get_layer("block14_sepconv2_act") in network.cnn.layers


def test_input_layers_have_the_names_in_existing_weight_files(network):
    assert sorted(network.model.input) == ["image", "rows"]


def test_shapes_of_the_branches_match_in_the_product(network):
    for name in ("cnn_features", "rnn_features", "product"):
        assert network.model.get_layer(name).output.shape == (None, 2048)
    assert network.model.output.shape == (None, 100)
    assert network.model.output.dtype == "float32"


def test_logits_are_not_probabilities(network):
    assert network.model.get_layer("logits").activation is keras.activations.linear


def test_trainable_parameters_of_each_phase(network):
    settings = config.Config()

    def trained():
        return sum(int(np.prod(v.shape)) for v in network.model.trainable_variables)

    phases.set_trainable(network, phases.PHASE1, settings)
    assert trained() == 48_627_712 + 33_562_624 + 204_900
    phases.set_trainable(network, phases.PHASE2, settings)
    norms = phases.batchnorm_layers(network)
    moving = sum(2 * norm.gamma.shape[0] for norm in norms)
    assert len(norms) == 40
    assert trained() == 103_256_716 - moving
    phases.set_trainable(network, phases.PHASE2, settings.replace(phase2_batchnorm="frozen"))
    assert trained() == 103_256_716 - 2 * moving


def test_blocks_of_xception(network):
    """A shortcut is of the block whose output is added to it."""
    blocks = cnn_branch.blocks(network.cnn)
    assert [layer for block in blocks for layer in block] == network.cnn.layers
    assert len(blocks) == 14
    block_of = {id(layer.output): number for number, block in enumerate(blocks) for layer in block}
    added = 0
    for number, block in enumerate(blocks):
        for layer in block:
            if layer.name.startswith("block"):
                assert layer.name.startswith(f"block{number + 1}_")
            if isinstance(layer, keras.layers.Add):
                added += 1
                main, shortcut = (block_of[id(tensor)] for tensor in layer.input)
                # Four shortcuts have a convolution of their own, the others none.
                assert main == number and shortcut == number - (number not in (1, 2, 3, 12))
    assert added == 12


def test_the_seed_determines_the_initial_weights():
    """On the branch and the head only: the full network takes ten seconds to initialize."""

    def weights(seed):
        sequence, features = keras.Input((2, 3)), keras.Input((4,))
        rnn_features = rnn_branch.build(sequence, 4, seed)
        logits = fusion.build(features, rnn_features, 5, seed + 4)
        return keras.Model([sequence, features], logits).get_weights()

    first, same, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[-2], other[-2])
    assert not np.array_equal(first[1], first[4])  # each layer has its own seed


def test_a_dropout_mask_multiplies_the_product_of_the_branches():
    network = small_network.small_build(3)
    batch = {
        "features": tf.random.stateless_uniform((2, 6), (0, 0)),
        "sequence": tf.random.stateless_uniform((2, 23, 3887), (0, 1), -1),
        "dropout": tf.constant([[2.0, 0, 2, 0, 0, 2], [0.0, 2, 2, 0, 2, 0]]),
    }
    cnn, rnn = network.branches(batch, training=True)
    kernel, bias = network.model.get_layer("logits").weights
    expected = tf.matmul(cnn * rnn * batch["dropout"], kernel.value) + bias.value
    np.testing.assert_allclose(network.logits(batch, training=True), expected, atol=1e-6)
