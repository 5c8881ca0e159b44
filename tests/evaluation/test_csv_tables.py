"""The tables contain the numbers of the report page."""

import csv
import tracemalloc

import numpy as np
import pytest

from cnnrnn.evaluation import class_scores, csv_tables
from cnnrnn.evaluation import predictions as predictions_lib
from tests.evaluation.report_content import report_content


class Split:
    """Images in files whose names contain a comma, a line break and a byte that is not UTF-8."""

    def path(self, index):
        return f"images/{index},\n\udcff.png"


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(0)
    label = np.array([0, 1, 1, 0])
    predictions = predictions_lib.Predictions(
        label=label,
        top=np.array([[0, 1], [1, 0], [0, 1], [0, 1]], np.int32),
        probability=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        loss=rng.exponential(size=4).astype(np.float32),
        top1=np.array([1, 1, 0, 1], np.float32),
        top5=np.ones(4, np.float32),
    )
    content = report_content(0.75, (0.75, 0.74, 0.1, 0.1), names=("a\tb", "c, d"))
    matrix = class_scores.confusion_matrix(predictions, 2)
    csv_tables.write(tmp_path, content, matrix, Split(), predictions)

    def read(name, dialect="excel"):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, dialect=dialect))

    return content, predictions, read


def test_metrics_with_their_intervals(written):
    content, _, read = written
    metrics = {line["metric"]: line for line in read("figures.csv")}
    for name in ("loss", "top1", "top5"):
        for end in ("value", "low", "high"):
            expected = getattr(getattr(content, name), end)
            assert float(metrics[name][end]) == pytest.approx(expected, abs=1e-6)
    for name in ("recall", "top5"):
        interval = getattr(content.macro, name)
        shown = [float(metrics[f"macro_{name}"][end]) for end in ("value", "low", "high")]
        assert shown == [interval.value, interval.low, interval.high]
    assert metrics["macro_precision"] == {
        "metric": "macro_precision", "value": "0.600000", "low": "", "high": "",
    }  # fmt: skip
    assert float(metrics["macro_f1"]["value"]) == content.macro.f1
    assert float(metrics["calibration_error"]["value"]) == content.calibration_error


def test_ablations_with_their_intervals(written):
    content, _, read = written
    lines = read("branches.csv")
    assert [line["ablation"] for line in lines] == [a.name for a in content.ablations]
    assert [float(line["top1"]) for line in lines] == [a.top1 for a in content.ablations]
    assert float(lines[3]["top1_drop"]) == pytest.approx(0.65)
    assert float(lines[3]["top1_drop_low"]) == pytest.approx(0.64)
    rnn = read("branch_outputs.csv")[1]
    assert (rnn["branch"], float(rnn["mean_abs"]), float(rnn["std"])) == ("RNN", 0.88, 0.005)


def test_predictions_have_one_line_per_image(written):
    _, predictions, read = written
    lines = read("predictions.csv")
    assert [line["index"] for line in lines] == ["0", "1", "2", "3"]
    assert [line["path"] for line in lines] == [rf"images/{i},\n\udcff.png" for i in range(4)]
    assert [line["true"] for line in lines] == ["a b", "c, d", "c, d", "a b"]
    assert [line["predicted"] for line in lines] == ["a b", "c, d", "a b", "a b"]
    np.testing.assert_allclose([float(ln["loss"]) for ln in lines], predictions.loss, atol=1e-6)


def test_the_confusion_of_many_classes_takes_little_memory(tmp_path):
    """Less than a byte for each cell; all cells as Python objects take more than 40."""
    count = 500
    table = csv_tables._confusion([str(n) for n in range(count)], np.zeros((count, count), int))
    tracemalloc.start()
    csv_tables._write(tmp_path / "confusion.csv", table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count**2


def test_classes_confusions_and_calibration(written):
    _, _, read = written
    classes = read("per_label.tsv", "excel-tab")
    assert list(classes[0]) == ["label", "top-1", "top-5", "precision", "f1", "images"]
    assert [line["label"] for line in classes] == ["a b", "c, d"]
    assert classes[0]["precision"] == ""  # not defined
    assert classes[0]["top-1"] == "0.500000" and classes[0]["images"] == "500"
    assert [(line["true"], line["a b"], line["c, d"]) for line in read("confusion.csv")] == [
        ("a b", "2", "0"), ("c, d", "1", "1"),
    ]  # fmt: skip
    (bin,) = read("calibration.csv")
    assert float(bin["confidence"]) == 0.95 and bin["images"] == "5"
