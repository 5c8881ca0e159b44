"""Variants of the network, through training, report, export and explanations."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors, phases
from cnnrnn.commands import evaluate, explain, export, train
from cnnrnn.export import loader
from cnnrnn.models import fusion
from cnnrnn.models import network as network_lib
from cnnrnn.runs import classifier
from cnnrnn.settings import network as network_settings
from tests import small_network

NORMALIZED = {"rnn_input": "standardized", "rnn_layer_norm": True}


EXPECTED = {
    "product": lambda cnn, rnn: cnn * rnn,
    "sum": lambda cnn, rnn: cnn + rnn,
    "concatenation": lambda cnn, rnn: np.concatenate([cnn, rnn], axis=1),
    "gated": lambda cnn, rnn: cnn * (1 + rnn),
    "cnn": lambda cnn, rnn: cnn,
    "rnn": lambda cnn, rnn: rnn,
    "gain": lambda cnn, rnn: cnn,  # times ones, at first
}


def batch():
    return {
        "image": tf.random.stateless_uniform((2, 299, 299, 3), (0, 0), -1),
        "sequence": tf.random.stateless_uniform((2, 23, 3887), (0, 1), -1),
    }


def test_the_settings_name_all_fusions():
    assert network_settings.FUSIONS == tuple(fusion.FUSIONS)


@pytest.mark.parametrize(
    "name, normalized",
    [
        *[(name, {}) for name in fusion.FUSIONS],
        *[
            pytest.param(
                name,
                NORMALIZED,
                id=f"{name}-normalized",
                marks=[] if name in ("product", "concatenation") else pytest.mark.slow,
            )
            for name in fusion.FUSIONS
        ],
    ],
)
def test_the_parts_together_are_the_model(name, normalized):
    network = small_network.small_build(3, variant=network_lib.Variant(name, **normalized))
    inputs = batch()
    whole = network.model(
        {"image": inputs["image"], network_lib.SEQUENCE_INPUT: inputs["sequence"]}, training=False
    )
    np.testing.assert_allclose(whole, network.logits(inputs, training=False), atol=1e-6)
    cnn, rnn = network.branches(inputs, training=False)
    fused = network.fused([cnn, rnn]).numpy()
    assert fused.shape == (2, network.fused_width)
    np.testing.assert_allclose(fused, EXPECTED[name](cnn.numpy(), rnn.numpy()), atol=1e-6)
    kernel, bias = network.fusion.get_layer("logits").get_weights()
    np.testing.assert_allclose(whole, fused @ kernel + bias, atol=1e-5)
    mask = np.zeros(fused.shape, np.float32)
    dropped = network.logits(inputs | {"dropout": tf.constant(mask)}, training=True)
    np.testing.assert_allclose(dropped, np.broadcast_to(bias, (2, 3)), atol=1e-6)
    branches = {"cnn": network.cnn.weights, "rnn": network.rnn.weights}
    left_out = {"cnn": ["rnn"], "gain": ["rnn"], "rnn": ["cnn"]}.get(name, [])
    weights = network.fusion.weights + sum(
        (own for branch, own in branches.items() if branch not in left_out), start=[]
    )
    assert {id(v) for v in weights} == {id(v) for v in network.model.weights}


def test_a_timestep_of_a_standardized_sequence_has_mean_0_and_deviation_1():
    variant = network_lib.Variant(rnn_input="standardized")
    network = small_network.small_build(3, variant=variant)
    sequence = 5 + 3 * batch()["sequence"]
    standardized = network.model.get_layer("standardized")(sequence).numpy()
    np.testing.assert_allclose(standardized.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(standardized.std(axis=-1), 1, atol=1e-3)


def assert_reported(config):
    """The results of an evaluation are those of the trained variant."""
    results = json.loads((config.run_dir / "results.json").read_text())
    as_trained = results["branches"]["ablations"][0]
    assert as_trained["top1"] == pytest.approx(results["validation"]["top1"])
    assert as_trained["loss"] == pytest.approx(results["validation"]["loss"], abs=1e-4)
    has_rnn = config.network.fusion not in network_settings.WITHOUT_RNN
    has_cnn = config.network.fusion != "rnn"
    assert (results["branches"]["rnn"] is not None) == has_rnn
    assert ("The network has no RNN branch." in results["branches"]["verdict"]) != has_rnn
    assert ("The network has no CNN branch." in results["branches"]["verdict"]) != has_cnn
    assert len(results["branches"]["ablations"]) == 1 + 2 * has_rnn + 2 * has_cnn


@pytest.mark.parametrize(
    "settings", [{"fusion": "concatenation", **NORMALIZED}, {"fusion": "gain"}]
)
@pytest.mark.thorough
def test_a_variant_is_trained_and_reported(small_config, small_network, settings):
    config = small_config.replace(**settings, epochs=(1, 1), dropout=0.2)
    train.phase1((), config)
    # Without the flags: the run knows its variant.
    evaluate.run((), small_config.replace(run=config.run.name))
    assert_reported(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"fusion": "concatenation", **NORMALIZED}, id="concatenation, normalized"),
        pytest.param({"fusion": "gated"}, id="gated"),
        pytest.param({"fusion": "sum", **NORMALIZED}, id="sum"),
        pytest.param({"fusion": "cnn"}, id="cnn"),
        pytest.param({"fusion": "rnn"}, id="rnn"),
        pytest.param({"fusion": "gain"}, id="gain"),
    ],
)
@pytest.mark.parametrize("complete_reports", [True], ids=[""])
def test_a_variant_is_trained_reported_exported_and_explained(
    settings, small_config, small_network, monkeypatch
):
    config = small_config.replace(**settings, epochs=(1, 1), dropout=0.2)
    train.train((phases.PHASE1, phases.PHASE2), config)
    plain = small_config.replace(run=config.run.name)
    evaluate.run((), plain)
    assert_reported(config)
    monkeypatch.setattr(export.bundle.keras_and_litert, "litert", lambda *_: b"")
    export.run((), plain)
    files = sorted(pathlib.Path(config.data.dataset, "val").rglob("*.png"))[:2]
    contents = [path.read_bytes() for path in files]
    signature = loader.load(config.run_dir / "export").signatures["serving_default"]
    exported = signature(image_bytes=contents)["probabilities"]
    loaded = classifier.load(config.run_dir)
    for index, content in enumerate(contents):
        views = {name: view[None] for name, view in loaded.views(content).items()}
        expected = np.sort(loaded.probabilities(views).numpy()[0])[::-1]
        np.testing.assert_allclose(exported[index], expected, atol=1e-5)
    assert settings["fusion"] in (config.run_dir / "export" / "README.md").read_text()
    explain.run(list(map(str, files)), plain)
    assert len(list((config.run_dir / "explanations").glob("*.png"))) == 2


def test_weights_of_another_variant_are_refused(trained, small_network):
    for changes in ({"fusion": "sum"}, {"rnn_input": "standardized"}):
        other = trained.replace(run="other", init_from=str(trained.run_dir), **changes)
        for config in (trained.replace(**changes), other):
            with pytest.raises(errors.UsageError, match="was trained with --fusion=product"):
                train.train((phases.PHASE2,), config)
