"""Class weights: balanced, from a file, and as part of the identity of a run."""

import json
import types

import numpy as np
import pytest
import sklearn.utils.class_weight

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import reproduce, train
from cnnrnn.runs import run_folder
from cnnrnn.training import class_weights

LABELS = np.array([0] * 6 + [1] * 3 + [3])
DATA = types.SimpleNamespace(
    class_names=("cat", "dog", "none", "owl"), train=types.SimpleNamespace(labels=LABELS)
)


def resolve(value):
    return class_weights.resolve(config_lib.Config.of(class_weights=str(value)), DATA)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "weights.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return path

    return write


def test_balanced_weights_give_every_class_the_same_share_of_the_loss():
    weights = resolve("balanced")
    assert weights.dtype == np.float32 and weights[2] == 1  # it has no images
    np.testing.assert_allclose(weights[[0, 1, 3]], [10 / 18, 10 / 9, 10 / 3], rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)
    totals = np.bincount(LABELS, weights[LABELS])[[0, 1, 3]]
    np.testing.assert_allclose(totals, 10 / 3, rtol=1e-6)
    sample_weights = sklearn.utils.class_weight.compute_sample_weight("balanced", LABELS)
    np.testing.assert_allclose(weights[LABELS], sample_weights, rtol=1e-6)


def test_without_weights_there_are_none():
    assert resolve("none") is None


def test_classes_that_a_file_does_not_list_get_1(file):
    assert resolve(file({"owl": 2.5, "dog": 0})).tolist() == [1, 0, 1, 2.5]
    assert class_weights.describe(resolve(file({"owl": 2.5})), DATA) == (
        "class weights: from 1 ('cat') to 2.5 ('owl')"
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ({"dgo": 2}, "no class 'dgo'. The closest name is 'dog'"),
        ({"xyz": 2}, "no class 'xyz'. The closest name is"),
        ({"dog": -1}, "the factor of 'dog' is -1: expected a number, 0 or more"),
        ('{"dog": NaN}', "the factor of 'dog' is NaN"),
        ('{"dog": 1e999}', "the factor of 'dog' is Infinity"),
        ({"dog": 1e300}, "the factor of 'dog' is 1e"),
        ({"dog": True}, "the factor of 'dog' is true"),
        ({"dog": "2"}, "the factor of 'dog' is \"2\""),
        ({"cat": 0, "dog": 0, "owl": 0}, "all factors are 0"),
        ([1, 2], "expected an object"),
        ('{"dog": 2', "is not valid JSON"),
        ('{"dog": 2, "dog": 3}', "'dog' is there twice"),
    ],
)
def test_a_wrong_file_is_refused(file, text, message):
    with pytest.raises(errors.UsageError, match=f"--class_weights=.*weights.json.*{message}"):
        resolve(file(text))


def test_a_mistyped_word_is_refused():
    with pytest.raises(errors.UsageError, match="=balnced cannot be read .*'none', 'balanced' or"):
        resolve("balnced")


@pytest.mark.usefixtures("instant_training")
def test_a_file_that_changed_is_refused_when_the_run_resumes(small_network, trained, file, capsys):
    settings = trained.replace(class_weights=str(file({"gray": 2})), epochs=(3, 2))
    folder = run_folder.RunFolder(settings.run_dir)
    recorded = folder.config()
    recorded["phase1"]["class_weights"] = settings.training.class_weights
    (folder.root / "config.json").write_text(json.dumps(recorded))
    train.phase1((), settings)
    assert "class weights: from 1 ('black') to 2 ('gray')" in capsys.readouterr().out
    content = {"black": 1, "gray": 2, "white": 1}
    assert folder.config()["phase1"]["class_weights_in_file"] == content
    file({"gray": 2.0, "white": 1})  # the same factors
    train.phase1((), settings)
    file({"gray": 3})
    with pytest.raises(errors.UsageError, match="other factors .* of 'gray': 2.0 .now 3.0."):
        train.phase1((), settings)
    train_labels = types.SimpleNamespace(labels=np.arange(3))
    data = types.SimpleNamespace(class_names=tuple(content), train=train_labels)
    weights = class_weights.resolve(settings, data)
    class_weights.check(folder, phases.PHASE2, settings, data, weights)  # it has not begun
    with pytest.raises(errors.UsageError, match="other factors"):
        reproduce._today(folder, phases.PHASE1, settings)
