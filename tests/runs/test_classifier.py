"""Classifier of a trained run: what it needs, its answers, damaged records."""

import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors, metrics, phases
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views
from cnnrnn.runs import best_weights, classifier, run_folder
from tests import cudnn, helpers
from tests import small_network as small_network_lib

CLASSES = ("cat", "dog", "fox")


@pytest.fixture
def run(tmp_path, small_network):
    """The folder of a run whose phase 1 has best weights."""
    folder = run_folder.RunFolder(tmp_path)
    model = small_network_lib.small_build(len(CLASSES), seed=3).model
    means = metrics.Means(0.5, 0.5, 0.5, 8)
    best_weights.save(folder.best, phases.PHASE1, model, CLASSES, 2, means)
    config = {"data": {"resize_method": "area"}, "phase1": {"precision": "float32"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_run_is_loaded_with_its_preprocessing_and_precision(run):
    loaded = classifier.load(run)
    assert loaded.class_names == CLASSES and loaded.best.epoch == 2
    assert loaded.preprocessing == views.Preprocessing("area")
    assert loaded.network.precision == "float32"
    assert classifier.load(str(run), precision="bfloat16").network.precision == "bfloat16"


def test_a_run_is_loaded_with_the_image_size_of_its_validation(run):
    config = json.loads((run / "config.json").read_text())
    config["phase1"]["eval_image_size"] = 224
    (run / "config.json").write_text(json.dumps(config))
    assert classifier.load(run).preprocessing.image_size == 224
    assert classifier.load(run, image_size=160).preprocessing.image_size == 160


def test_a_run_is_loaded_with_its_variant(run):
    width = classifier.load(run).network.fused_width
    model = small_network_lib.small_build(3, variant=network_lib.Variant("concatenation")).model
    best_weights.save(run / "best", phases.PHASE1, model, CLASSES, 2, metrics.Means(1, 0.5, 1, 8))
    config = json.loads((run / "config.json").read_text())
    config["phase1"]["fusion"] = "concatenation"
    (run / "config.json").write_text(json.dumps(config))
    assert classifier.load(run).network.fused_width == 2 * width


def test_loading_leaves_the_random_generators_of_the_process_alone(run):
    keras.utils.set_random_seed(5)
    undisturbed = np.random.uniform(), float(tf.random.uniform(()))
    keras.utils.set_random_seed(5)
    classifier.load(run)
    assert (np.random.uniform(), float(tf.random.uniform(()))) == undisturbed
    random.seed(5)
    classifier.load(run)
    first = random.random()
    classifier.load(run)
    assert random.random() != first


def test_the_lstm_kernel_follows_the_devices_of_the_process(run, monkeypatch):
    config = json.loads((run / "config.json").read_text())
    config["phase1"]["lstm_kernel"] = "cudnn"  # trained on a GPU
    (run / "config.json").write_text(json.dumps(config))
    assert classifier.load(run).network.lstm_kernel == "ours"
    cudnn.pretend_gpu(monkeypatch)
    assert classifier.load(run).network.lstm_kernel == "cudnn"
    assert classifier.load(run, lstm_kernel="ours").network.lstm_kernel == "ours"
    assert classifier.load(run, precision="bfloat16").network.lstm_kernel == "ours"


def test_an_encoded_image_gets_probabilities(run):
    loaded = classifier.load(run)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    inputs = loaded.views(helpers.png(pixels))
    assert {name: tuple(view.shape) for name, view in inputs.items()} == {
        name: tuple(spec.shape) for name, spec in loaded.view_specs.items()
    }
    for name, view in loaded.views_of(pixels).items():
        np.testing.assert_array_equal(view, inputs[name])
    probabilities = loaded.probabilities({name: view[None] for name, view in inputs.items()})
    assert probabilities.shape == (1, 3)
    assert float(np.sum(probabilities)) == pytest.approx(1)


def test_the_most_likely_classes_come_first_and_ties_by_label(run):
    top = classifier.load(run).top(np.array([0.25, 0.5, 0.25]), 5)
    assert top == [("dog", 0.5), ("cat", 0.25), ("fox", 0.25)]


def test_an_untrained_run_is_refused(tmp_path):
    with pytest.raises(errors.UsageError, match="there are no trained weights"):
        classifier.load(tmp_path)


@pytest.mark.parametrize("config", ['{"data": {}}', '{"data": {"resize_method": "area"}}', "{"])
def test_an_incomplete_config_is_one_sentence(run, config):
    (run / "config.json").write_text(config)
    with pytest.raises(
        errors.UsageError, match=r"config\.json (lacks the settings|cannot be read)"
    ):
        classifier.load(run)
