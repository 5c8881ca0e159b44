"""The files of an evaluation, after a run on the small network."""

import errno
import json

import pytest
import tensorflow as tf

from cnnrnn.commands import evaluate
from cnnrnn.evaluation import html_report
from cnnrnn.runs import event_files


def tags_by_plugin(directory):
    """{plugin: tags} of the summaries in the event files of a folder."""
    tags = {}
    for path in directory.glob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            for value in tf.compat.v1.Event.FromString(record).summary.value:
                tags.setdefault(value.metadata.plugin_data.plugin_name, set()).add(value.tag)
    return tags


def test_an_evaluation_writes_its_files(evaluated_run):
    assert {path.name for path in (evaluated_run / "evaluation").iterdir()} == {
        "report.html",
        "per_label.tsv",
        "figures.csv",
        "confusion.csv",
        "branches.csv",
        "branch_outputs.csv",
        "calibration.csv",
        "predictions.csv",
        "top1_by_label.png",
        "top5_by_label.png",
    }
    results = json.loads((evaluated_run / "results.json").read_text())
    assert set(results) == {
        "dataset", "fingerprint", "images_in_training", "cnn_image_size", "weights", "phase",
        "epoch", "validation", "macro", "intervals_95", "calibration_error", "branches",
    }  # fmt: skip
    assert set(results["macro"]) == {"classes", "recall", "top5", "precision", "f1"}
    assert set(results["intervals_95"]) == {"loss", "top1", "top5", "macro_recall", "macro_top5"}
    # All classes have three validation images.
    assert results["macro"]["recall"] == pytest.approx(results["validation"]["top1"])
    assert set(results["branches"]) == {"cnn", "rnn", "ablations", "verdict"}
    assert set(results["branches"]["cnn"]) == {"mean", "mean_abs", "std"}
    assert set(results["branches"]["ablations"][0]) == {
        "name", "loss", "top1", "top5", "top1_drop", "top5_drop",
    }  # fmt: skip


def test_an_evaluation_that_fails_leaves_no_results_of_the_one_before(
    evaluated_run, evaluated, monkeypatch
):
    def full(_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(html_report, "render", full)
    with pytest.raises(OSError, match="no space left"):
        evaluate.run((), evaluated)
    assert not (evaluated_run / "results.json").exists()


@pytest.mark.parametrize("complete_reports", [True], ids=[""])
@pytest.mark.thorough
def test_tensorboard_shows_only_the_last_evaluation(evaluated_run, evaluated):
    evaluate.run((), evaluated)
    results = json.loads((evaluated_run / "results.json").read_text())
    events = evaluated_run / "events" / "phase1" / "evaluation"
    points = event_files.scalars(events)
    scalars = {tag: value for tag, _, value in points}
    assert points and len(scalars) == len(points)
    assert scalars["evaluation/top1"] == pytest.approx(results["validation"]["top1"])
    assert scalars["evaluation/macro_f1"] == pytest.approx(results["macro"]["f1"])
    assert scalars["evaluation/macro_recall/low"] == pytest.approx(
        results["intervals_95"]["macro_recall"][0]
    )
    permuted = results["branches"]["ablations"][1]
    assert scalars["evaluation/RNN permuted across images/loss"] == pytest.approx(permuted["loss"])
    tags = tags_by_plugin(events)
    assert "evaluation/top1_by_class" in tags["images"]
    assert not tags["images"] & tags["scalars"]  # TensorBoard shows one kind of summary per tag
