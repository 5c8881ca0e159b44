"""`evaluate` as a command."""

import json
import pathlib
import shutil
import types

import pytest
import tensorflow as tf

from cnnrnn import errors, metrics
from cnnrnn.commands import evaluate
from cnnrnn.datasets import dataset
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.runs import run_folder
from tests import (
    small_network,
    two_cpus,  # noqa: F401
)


def test_a_damaged_manifest_is_reported_before_any_prediction(small_network, trained, monkeypatch):
    (trained.run_dir / "manifest.json").write_text('{"phase1": ')

    def predict(self, split, **keywords):
        pytest.fail("predicted before the manifest was read")

    monkeypatch.setattr(predictions_lib.Evaluator, "predict", predict)
    with pytest.raises(errors.RunError, match=r"manifest\.json"):
        evaluate.run((), trained)


@pytest.mark.parametrize("evaluated_split, noted", [("validation", True), ("test", False)])
def test_phase1_is_compared_by_the_figures_of_training_only(
    evaluated_split, noted, monkeypatch, capsys, tmp_path
):
    first, second = (
        types.SimpleNamespace(phase=name, validation=metrics.Means(1.0, top1, 1.0, 10))
        for name, top1 in (("phase1", 0.8), ("phase2", 0.7))
    )
    scored = types.SimpleNamespace(means=metrics.Means(1.0, 0.9, 1.0, 5))
    monkeypatch.setattr(evaluate, "score_best", lambda *_, **__: (second, None, scored))
    macro = types.SimpleNamespace(classes=2)
    monkeypatch.setattr(evaluate.report, "write", lambda *_: macro)
    monkeypatch.setattr(evaluate.best_weights, "describe", lambda *_: "best weights")
    monkeypatch.setattr(evaluate.best_weights, "find", lambda *_: first)
    data = types.SimpleNamespace(validation=range(5), evaluated=evaluated_split, class_names="ab")
    strategy = tf.distribute.get_strategy()
    evaluate.evaluate(run_folder.RunFolder(tmp_path), None, data, None, strategy)
    note = "note: in training, phase 1 alone reached 80.00% top-1 and phase 2 70.00%."
    assert (note in capsys.readouterr().out) == noted


def test_test_images_are_evaluated_beside_the_validation_split(
    small_network, evaluated, tmp_path, capsys
):
    """The validation images as a test set have the same figures, in a folder of their own."""
    before = (evaluated.run_dir / "results.json").read_text()
    test = tmp_path / "Unseen images"
    shutil.copytree(pathlib.Path(evaluated.data.dataset) / "val", test)
    evaluate.run((), evaluated.replace(test_dataset=str(test)))
    assert "on 9 test images" in capsys.readouterr().out
    assert (evaluated.run_dir / "results.json").read_text() == before
    folder = evaluated.run_dir / "test-Unseen images"
    expected, results = json.loads(before), json.loads((folder / "results.json").read_text())
    for name in ("validation", "macro", "weights", "images_in_training"):
        assert results[name] == expected[name]
    assert results["dataset"] == str(test)
    assert (folder / "report.html").exists() and (folder / "predictions.csv").exists()


def test_any_number_of_replicas_can_evaluate(trained, two_replicas, monkeypatch):
    used = []

    def recorded(self, step, strategy, batch_size, preprocessing):
        used.append(batch_size)
        raise errors.RunError("enough")

    monkeypatch.setattr(predictions_lib.Evaluator, "__init__", recorded)
    data, settings = dataset.load(trained), trained.replace(batch_size=(3, 3))
    with two_replicas.scope():
        network = small_network.small_build(len(data.class_names))
    folder = run_folder.RunFolder(trained.run_dir)
    with pytest.raises(errors.RunError, match="enough"):
        evaluate.score_best(folder, settings, data, network, two_replicas)
    assert used == [4]


@pytest.mark.thorough
def test_the_results_of_another_test_set_are_not_overwritten(small_network, evaluated, tmp_path):
    for place in ("first", "second"):
        val = pathlib.Path(evaluated.data.dataset) / "val"
        shutil.copytree(val, tmp_path / place / "test")
    first, second = (
        evaluated.replace(test_dataset=str(tmp_path / place / "test"))
        for place in ("first", "second")
    )
    folder = evaluated.run_dir / "test-test"
    folder.mkdir()
    earlier = json.loads((evaluated.run_dir / "results.json").read_text())
    earlier |= {"dataset": first.evaluation.test_dataset, "date": "earlier"}
    (folder / "results.json").write_text(json.dumps(earlier))
    # The same may be evaluated again.
    evaluate.run((), first.replace(test_dataset=f"{first.evaluation.test_dataset}/"))
    assert '"earlier"' not in (folder / "results.json").read_text()
    change = next((tmp_path / "second").rglob("black*.png"))
    change.write_bytes(next((tmp_path / "first").rglob("white*.png")).read_bytes())
    with pytest.raises(errors.UsageError, match="test-test holds the evaluation of .*first/test"):
        evaluate.run((), second)
