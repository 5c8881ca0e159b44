"""`average`: the weights between two phases, as a run that every other command takes."""

import json
import types

import numpy as np
import pytest

from cnnrnn import config as config_lib
from cnnrnn import errors, metrics, phases
from cnnrnn.commands import average, evaluate, reproduce, train
from cnnrnn.datasets import dataset
from cnnrnn.evaluation import predictions
from cnnrnn.export import bundle
from cnnrnn.runs import best_weights, classifier, run_folder
from cnnrnn.system import checksummed
from tests import (
    helpers,
    small_network,
    two_cpus,  # noqa: F401
)

NOT_GIVEN = config_lib.Config().data.dataset


@pytest.fixture
def both(trained, small_network):
    """The settings of a run with best weights of both phases, those of phase 2 made up."""
    folder = run_folder.RunFolder(trained.run_dir)
    model = network_of(folder, phases.PHASE1).model
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0.1, 0.2, w.shape) for w in model.get_weights()])
    means = metrics.Means(1.0, 0.5, 1.0, 9)
    best_weights.save(folder.best, phases.PHASE2, model, helpers.CLASSES, 2, means)
    first = best_weights.find(folder.best, phases.PHASE1).weights.name
    for name in ("config.json", "manifest.json"):
        record = json.loads((folder.root / name).read_text())
        second = record["phase1"] | {"started_from": f"{first} (epoch 2 of phase1)"}
        (folder.root / name).write_text(json.dumps(record | {"phase2": second}))
    return trained


@pytest.fixture
def not_validated(monkeypatch):
    """The average has made-up figures: a pass over the images takes most of the time."""
    scored = types.SimpleNamespace(means=metrics.Means(0.9, 0.6, 1.0, 9))
    monkeypatch.setattr(predictions.Evaluator, "predict", lambda *_, **__: scored)


def network_of(folder, phase):
    network = small_network.small_build(len(helpers.CLASSES))
    best_weights.load(best_weights.find(folder.best, phase), network.model, helpers.CLASSES)
    return network


def weights_of(root, phase=phases.PHASE2):
    return network_of(run_folder.RunFolder(root), phase).model.get_weights()


def averaged(config, alpha):
    """The folder of the new run."""
    average.run([config.run.name], config.replace(alpha=alpha, run=""))
    return config.run_dir.with_name(f"{config.run.name}-average-{alpha:g}")


def test_the_weights_lie_between_those_of_the_phases(both, not_validated):
    """All of them, also BatchNorm's moving statistics; at the ends bit for bit."""
    ends = [weights_of(both.run_dir, phase) for phase in (phases.PHASE1, phases.PHASE2)]
    assert len(ends[0]) == len(small_network.small_build(3).model.weights)
    for alpha, end in ((0, ends[0]), (1, ends[1])):
        for a, b in zip(weights_of(averaged(both, alpha)), end, strict=True):
            assert a.tobytes() == b.tobytes()
    for a, before, after in zip(weights_of(averaged(both, 0.25)), *ends, strict=True):
        np.testing.assert_allclose(a, 0.75 * before + 0.25 * after, atol=1e-7)


def test_weights_that_are_equal_in_both_phases_stay_as_they_are():
    weights = [np.random.default_rng(0).normal(size=1000).astype(np.float32)]
    (between,) = average.interpolated(weights, weights, 0.3)
    assert between.tobytes() == weights[0].tobytes() and between.dtype == np.float32
    negative_zero = np.array([-0.0], np.float32)
    (end,) = average.interpolated([negative_zero], [np.ones(1, np.float32)], 0.0)
    assert end.tobytes() == negative_zero.tobytes()


def test_it_is_validated_as_training_validates(both, capsys):
    best = best_weights.latest(averaged(both, 0) / "best")
    phase1 = best_weights.find(both.run_dir / "best", phases.PHASE1)
    assert (best.phase, best.epoch) == ("phase2", 2)
    assert best.validation.count == phase1.validation.count == 9
    assert best.validation.loss == pytest.approx(phase1.validation.loss, abs=1e-5)
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Validation:")
    assert lines[start + 1].split()[0] == "phase1" and str(phase1.validation) in lines[start + 1]
    assert lines[start + 2].split()[0] == "phase2" and "loss 1.0000" in lines[start + 2]
    assert "average, alpha 0 " in lines[start + 3] and str(best.validation) in lines[start + 3]
    assert f"./run.sh evaluate --dataset={both.data.dataset}" in lines[start + 5]
    assert "--run=test-average-0 " in f"{lines[start + 5]} "


def test_the_manifest_tells_what_it_was_made_of(both, not_validated):
    path = both.run_dir / "manifest.json"
    recorded = json.loads(path.read_text())
    recorded["phase2"]["first_sample"] = 8
    path.write_text(json.dumps(recorded))
    described = run_folder.RunFolder(averaged(both, 0.5)).manifest()["phase2"]
    for phase in (phases.PHASE1, phases.PHASE2):
        best = best_weights.find(both.run_dir / "best", phase)
        assert checksummed.file_digest(best.weights) == best.sha256
        assert described["average"][f"{phase.name}_sha256"] == best.sha256
    assert described["first_sample"] == 8
    assert described["average"]["alpha"] == 0.5 and both.run.name in described["started_from"]


@pytest.mark.thorough
def test_other_commands_take_it_as_a_run(both, one_replica, capsys):
    root = averaged(both, 0.5)
    settings = both.replace(run=root.name)
    evaluate.run((), settings)
    results = json.loads((root / "results.json").read_text())
    best = best_weights.latest(root / "best")
    assert results["validation"]["loss"] == pytest.approx(best.validation.loss, abs=1e-5)
    loaded = classifier.load(root)
    assert loaded.class_names == helpers.CLASSES
    described = bundle.describe(run_folder.RunFolder(root), loaded, settings)
    assert described["training_images"] == "18" and described["precision"] == "float32"
    named = "average of the weights of both phases (alpha 0.5)"
    assert described["weights"] == named
    assert f"A{named[1:]} on 9 validation images" in capsys.readouterr().out
    page = (root / "evaluation" / "report.html").read_text()
    assert named in page and ": average</title>" in page and results["alpha"] == 0.5


def test_training_does_not_continue_or_overwrite_it(both, not_validated):
    root = averaged(both, 0.5)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    settings = both.replace(run=root.name)
    for todo in ((phases.PHASE2,), (phases.PHASE1, phases.PHASE2)):
        with pytest.raises(errors.UsageError, match="no checkpoint to continue from.*--run=NAME"):
            train.train(todo, settings)
    with pytest.raises(errors.UsageError, match="it is an average"):
        reproduce.run([root.name], config_lib.Config.of(runs_dir=str(root.parent)), ("false",))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_trained_run_is_not_overwritten(both, not_validated):
    before = weights_of(both.run_dir)
    with pytest.raises(errors.UsageError, match="give another --run=NAME"):
        average.run([both.run.name], both)
    for a, b in zip(weights_of(both.run_dir), before, strict=True):
        np.testing.assert_array_equal(a, b)
    averaged(both, 0.5)
    with pytest.raises(errors.UsageError, match="test-average-0.5 is a run with trained weights"):
        averaged(both, 0.5)
    average.run([str(both.run_dir)], both.replace(run="other"))
    assert best_weights.latest(both.run_dir.with_name("other") / "best").phase == "phase2"


def test_a_run_without_both_phases_is_refused(trained):
    with pytest.raises(errors.UsageError, match="no best weights of phase2"):
        averaged(trained, 0.5)
    with pytest.raises(errors.UsageError, match="expected one run: average RUN --alpha=0.5"):
        average.run([], trained)


def test_phases_that_do_not_belong_together_are_refused(both):
    for name, key, value in (
        ("config.json", "init_from", "runs/another"),
        ("manifest.json", "started_from", "best/phase1-epoch0001.weights.h5 (epoch 1 of phase1)"),
    ):
        path = both.run_dir / name
        before = path.read_text()
        recorded = json.loads(before)
        recorded["phase2"][key] = value
        path.write_text(json.dumps(recorded))
        with pytest.raises(errors.UsageError, match="not from the best weights of the phase 1"):
            averaged(both, 0.5)
        path.write_text(before)


def test_images_that_were_moved_are_found_by_the_flag(both, not_validated):
    path, now = both.run_dir / "config.json", both.data.dataset
    record = json.loads(path.read_text())
    record["phase2"]["dataset"] = f"{now}-before"
    path.write_text(json.dumps(record))
    with pytest.raises(errors.UsageError, match="neither a folder nor a known data set"):
        averaged(both.replace(dataset=NOT_GIVEN), 0.5)
    assert (averaged(both, 0.5) / "best").exists()


def test_it_is_written_beside_the_run_and_other_flags_are_refused(both, not_validated, monkeypatch):
    settings = config_lib.Config.of(alpha=0.25)
    average.run([str(both.run_dir)], settings)
    new = both.run_dir.with_name(f"{both.run.name}-average-0.25")
    assert best_weights.find(run_folder.RunFolder(new).best, phases.PHASE2)
    loaded, load = [], dataset.load
    monkeypatch.setattr(dataset, "load", lambda settings: loaded.append(settings) or load(settings))
    average.run([str(both.run_dir)], settings.replace(alpha=0.75, data_dir="moved"))
    assert loaded[-1].data.data_dir == "moved"
    with pytest.raises(errors.UsageError, match="--eval_image_size=224 cannot be combined with"):
        average.run([str(both.run_dir)], settings.replace(eval_image_size=224))


def test_any_number_of_replicas_can_validate_it(both, not_validated, two_replicas, monkeypatch):
    path = both.run_dir / "config.json"
    recorded = json.loads(path.read_text())
    recorded["phase2"]["batch_size"] = [4, 3]
    path.write_text(json.dumps(recorded))
    monkeypatch.setattr(average.devices_lib, "strategy", lambda cpus: two_replicas)
    used, make = [], predictions.Evaluator.__init__

    def recorded(self, step, strategy, batch_size, preprocessing):
        used.append(batch_size)
        make(self, step, strategy, batch_size, preprocessing)

    monkeypatch.setattr(predictions.Evaluator, "__init__", recorded)
    averaged(both, 1)
    assert used == [4]


def test_other_images_and_classes_are_refused(both, images):
    root = both.run_dir
    record = json.loads((root / "config.json").read_text())
    helpers.write_classes(images / "other", 2, seed=3)
    (images / "train" / "gray" / "gray_00.png").write_bytes(
        helpers.png(np.zeros((5, 5, 3), np.uint8))
    )
    record["phase2"]["dataset"] = str(images)
    (root / "config.json").write_text(json.dumps(record))
    with pytest.raises(errors.UsageError, match="created with other images"):
        averaged(both.replace(dataset=NOT_GIVEN), 0.5)
    assert not (root.with_name("test-average-0.5") / "best").exists()
