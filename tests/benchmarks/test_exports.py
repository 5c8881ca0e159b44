"""The benchmark of exported files: the inputs that it gives them, and the images of the run."""

import json
import subprocess

import numpy as np

from benchmarks import exports
from cnnrnn.preprocessing import views
from cnnrnn.runs import classifier as classifier_lib
from tests import bad_images, small_network
from tests.export import small_export


def test_files_get_images_of_299_pixels_whatever_the_size_of_the_cnn(tmp_path, monkeypatch):
    network = small_network.small_build(3)
    names = small_export.NAMES
    classifier = classifier_lib.Classifier(
        network, names, views.Preprocessing(image_size=160), small_export.classifier(names).best
    )
    shapes = []

    def classify(command, cwd, **_):
        shapes.append(np.load(cwd / "views.npy").shape)
        labels = np.zeros((2, 1), int)
        np.savez(cwd / "predictions.npz", labels=labels, probabilities=labels, seconds=1.0)

    monkeypatch.setattr(subprocess, "run", classify)
    (tmp_path / "model.keras").write_bytes(b"")
    contents = [bad_images.JPEG, bad_images.PNG]
    exports.measure(classifier, tmp_path, contents, np.zeros(2, int), names=("model.keras",))
    assert shapes == [(2, 299, 299, 3)]


def test_the_images_are_those_of_the_runs_split(tmp_path):
    split = {"validation_fraction": 0.3, "split_seed": 4, "fold": "2/5", "class_separator": "/"}
    (tmp_path / "config.json").write_text(json.dumps({"data": split | {"dataset": "other"}}))
    data = exports._data_config(tmp_path, "images", "").data
    assert {name: getattr(data, name) for name in split} == split and data.dataset == "images"
    old = {"validation_fraction": 0.3, "split_seed": 4}  # of an earlier version
    (tmp_path / "config.json").write_text(json.dumps({"data": old}))
    assert exports._data_config(tmp_path, "images", "").data.fold == ""
