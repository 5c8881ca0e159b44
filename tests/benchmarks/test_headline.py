"""The record of accuracy, made from a run of the small network."""

import csv
import json
import pathlib
import re
import shutil
import types

import pytest

from benchmarks import headline_record, headline_table
from cnnrnn import config, phases
from cnnrnn.commands import evaluate, train
from cnnrnn.runs import run_folder


@pytest.fixture
def looked_at(small_network, evaluated, monkeypatch):
    """The settings of a run with an evaluation on test images, which are those of validation."""
    folder = evaluated.run_dir / "test-val"
    shutil.copytree(evaluated.run_dir / "evaluation", folder)
    results = json.loads((evaluated.run_dir / "results.json").read_text())
    results["dataset"] = str(pathlib.Path(evaluated.data.dataset) / "val")
    (folder / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(headline_record, "TEST_SET", "test-val")
    return evaluated


@pytest.mark.thorough
def test_a_run_and_the_one_it_started_from_are_recorded(looked_at, tmp_path):
    results = tmp_path / "results"
    headline_record.add(looked_at.run_dir, "first", results=results)
    second = looked_at.replace(run="second", init_from=str(looked_at.run_dir))
    train.train((phases.PHASE2,), second)
    shutil.copytree(looked_at.run_dir / "test-val", second.run_dir / "test-val")
    evaluate.run((), second.replace(test_dataset=str(pathlib.Path(second.data.dataset) / "val")))
    headline_record.add(second.run_dir, "second", "first", results=results)
    headline_record.add(second.run_dir, "second", results=results)  # nothing is new
    headline_table.table(results)

    with open(results / "evaluations.csv", newline="") as file:
        evaluations = list(csv.DictReader(file))
    assert [(evaluation["run"], evaluation["phase"]) for evaluation in evaluations] == [
        ("first", "phase1"),
        ("second", "phase2"),
    ]
    expected = json.loads((second.run_dir / "test-val" / "results.json").read_text())
    assert float(evaluations[1]["top5"]) == expected["validation"]["top5"]
    assert float(evaluations[1]["top1_low"]) == expected["intervals_95"]["top1"][0]

    points = headline_table.totals("second", results)
    # Two epochs of 4 steps of 4 images, then two epochs of 9 steps of 2 images.
    assert [point.images for point in points.values()] == [16, 32, 50, 68]
    assert [key[0] for key in points] == ["first", "first", "second", "second"]
    minutes = [point.cpu_minutes for point in points.values()]
    assert 0 < minutes[0] < minutes[1] < minutes[2] < minutes[3]
    page = (results / "README.md").read_text()
    epoch = int(evaluations[1]["epoch"])
    assert f"| second | phase2 | {epoch} | {[50, 68][epoch - 1]} |" in page
    assert "Phase 2 started from the best weights of first." in page
    assert str(tmp_path) not in page and "--epochs=2,2" in page
    assert (results / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in (results / "second" / "record.json").read_text()


@pytest.mark.thorough
def test_a_run_is_compared_with_its_control_image_by_image(looked_at, tmp_path):
    results = tmp_path / "results"
    headline_record.add(looked_at.run_dir, "first", results=results)
    headline_record.add(looked_at.run_dir, "control", control_of="first", results=results)
    path = results / "control" / "predictions.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    was_right = cells[2] == cells[3]
    cells[3] = "another class" if was_right else cells[2]
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:], ""]))
    headline_table.table(results)
    page = (results / "README.md").read_text()
    found = re.search(r"\| first \| control \| phase1, \d \| 9 \| (\S+) \[.*\| (\S+) \[", page)
    top1, top5 = map(float, found.groups())
    assert top1 == pytest.approx(100 / 9 if was_right else -100 / 9, abs=0.005) and top5 == 0
    for name, old, new in (
        ("results.json", '"epoch": ', '"epoch": 1'),
        ("record.json", '"--xception_weights=none"', '"--label_smoothing=0.1"'),
    ):
        path = results / "control" / name
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))
        with pytest.raises(ValueError, match="control is no control of first"):
            headline_table.table(results)
        path.write_text(content)
    with pytest.raises(ValueError, match="--after=nobody: .* has no such results"):
        headline_record.add(looked_at.run_dir, "first", "nobody", results=results)


def test_a_validation_within_an_epoch_is_not_that_of_the_epoch_before(trained, monkeypatch):
    figures = (*headline_record._FIGURES, *headline_record._TIMES)
    steps = (4, 7)  # of 4 per epoch: the second epoch was cut off

    def scalars(events):
        return [(tag, step, float(step)) for tag in figures for step in steps]

    monkeypatch.setattr(headline_record.event_files, "scalars", scalars)
    points = list(headline_record.curve(run_folder.RunFolder(trained.run_dir)))
    assert [(point.epoch, point.images) for point in points] == [(1, 16), (2, 28)]


def test_an_average_is_not_recorded(trained, tmp_path):
    path = trained.run_dir / "manifest.json"
    recorded = json.loads(path.read_text())
    recorded["phase2"] = recorded["phase1"] | {"average": {"alpha": 0.5}}
    path.write_text(json.dumps(recorded))
    with pytest.raises(ValueError, match="is an average of weights"):
        headline_record.add(trained.run_dir, "average", results=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_weights_that_no_epoch_has_trained_are_not_in_the_table():
    evaluation = types.SimpleNamespace(run="first", phase="phase2", epoch=3)
    with pytest.raises(ValueError, match="no validation of epoch 3 of phase2"):
        headline_table._reached(evaluation, {"first": {}})


def test_paths_of_the_machine_are_left_out():
    kept = 'https://example.org/a/b </td> image/png;base64,/9j/4AAQ+/ab/cd 1/2 "weights.h5"'
    assert headline_record.without_paths(kept) == kept
    text = '"/home/me/cnnrnn/main.py train" cached in /tmp/x-1/w.h5.'
    assert headline_record.without_paths(text) == '"main.py train" cached in w.h5.'
    table = "0,/home/me/images/cat/1.png,cat\n"
    assert headline_record.without_paths(table) == "0,1.png,cat\n"
    named = config.Config.of(dataset="/home/me/cats", feature_cache="/tmp/f", epochs=(1, 1))
    assert headline_record.flags_without_paths(named) == ["--dataset=cats", "--epochs=1,1"]
