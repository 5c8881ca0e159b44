"""The tables hold the figures that the page shows."""

import csv

import numpy as np
import pytest
from test_page import content_of

from cnnrnn.evaluation import class_scores, csv_tables
from cnnrnn.evaluation import predictions as predictions_lib


class Split:
    """Images in files whose names are what users make of them."""

    def path(self, row):
        return f"images/{row},\n\udcff.png"


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
    content = content_of(0.75, (0.75, 0.74, 0.1, 0.1), names=("a\tb", "c, d"))
    matrix = class_scores.confusion_matrix(predictions, 2)
    csv_tables.write(tmp_path, content, matrix, Split(), predictions)

    def read(name, dialect="excel"):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, dialect=dialect))

    return content, predictions, read


def test_figures_and_branches_with_their_intervals(written):
    content, _, read = written
    figures = {row["figure"]: row for row in read("figures.csv")}
    for name in ("loss", "top1", "top5"):
        for end in ("value", "low", "high"):
            expected = getattr(getattr(content, name), end)
            assert float(figures[name][end]) == pytest.approx(expected, abs=1e-6)
    assert float(figures["calibration_error"]["value"]) == content.calibration_error
    trials = read("branches.csv")
    assert [float(row["top-1"]) for row in trials] == [t.top1 for t in content.trials]
    assert float(trials[3]["top1_cost"]) == pytest.approx(0.65)
    assert float(trials[3]["top1_low"]) == pytest.approx(0.64)


def test_every_image_is_named_with_what_was_said_of_it(written):
    _, predictions, read = written
    rows = read("predictions.csv")
    assert [row["path"] for row in rows] == [rf"images/{i},\n\udcff.png" for i in range(4)]
    assert [row["true"] for row in rows] == ["a b", "c, d", "c, d", "a b"]
    assert [row["predicted"] for row in rows] == ["a b", "c, d", "a b", "a b"]
    np.testing.assert_allclose([float(r["loss"]) for r in rows], predictions.loss, atol=1e-6)


def test_classes_confusions_and_calibration(written):
    _, _, read = written
    assert [row["class"] for row in read("classes.csv")] == ["a b", "c, d"]
    assert read("classes.csv")[0]["precision"] == ""  # there is none: nothing was called so
    assert [(row["true"], row["a b"], row["c, d"]) for row in read("confusion.csv")] == [
        ("a b", "2", "0"), ("c, d", "1", "1"),
    ]  # fmt: skip
    (row,) = read("calibration.csv")
    assert float(row["confidence"]) == 0.95 and row["images"] == "5"
    assert [row["label"] for row in read("per_label.tsv", "excel-tab")] == ["a b", "c, d"]
