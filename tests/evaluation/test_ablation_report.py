"""The report of a comparison of networks."""

import dataclasses
import json
import math

import numpy as np

from cnnrnn.evaluation import ablation_report, network_comparison
from tests import pages
from tests.evaluation import comparisons


def test_a_control_that_is_far_off_does_not_hide_the_other_differences(monkeypatch):
    charts = []
    monkeypatch.setattr(ablation_report.charts, "png", charts.append)
    ablation_report._forest(comparisons.comparison([0.76, 0.75] * 3, [0.75, 0.76] * 3))
    (low, high), texts = charts[0].axes[0].get_xlim(), charts[0].axes[0].texts
    assert -20 < low < 0 < high < 20 and [text.get_text() for text in texts] == ["+50.5 \u25b6"]
    ablation_report._forest(comparisons.comparison([0.6, 0.5] * 3, [0.3, 0.4] * 3))
    assert charts[1].axes[0].get_xlim()[1] > 30 and not charts[1].axes[0].texts
    # An RNN alone that is near, but varies much from seed to seed, is no arrow.
    near = comparisons.comparison([0.76, 0.75] * 3, [0.75, 0.76] * 3)
    varying = [comparisons.training(np.arange(400) < share * 400) for share in [0.4, 1.0, 0.9] * 2]
    trainings = near.trainings | {"rnn": varying}
    ablation_report._forest(dataclasses.replace(near, trainings=trainings))
    assert charts[2].axes[0].get_xlim()[1] < 20 and not charts[2].axes[0].texts


def test_curves_of_one_validation_are_not_drawn(tmp_path):
    found = comparisons.comparison([0.9], [0.5])
    once = {
        fusion: [dataclasses.replace(one, curve=one.curve[:1]) for one in trainings]
        for fusion, trainings in found.trainings.items()
    }
    once_only = dataclasses.replace(found, trainings=once)
    assert network_comparison.remarks(once_only)[-1].startswith("Each network was validated once: ")
    for trainings, is_drawn in ((found.trainings, True), (once, False)):
        ablation_report.write(tmp_path, dataclasses.replace(found, trainings=trainings))
        assert ("<h2>Curves</h2>" in (tmp_path / "ablation.html").read_text()) == is_drawn
    assert b"\r" not in (tmp_path / "ablation.csv").read_bytes()


def test_the_table_has_each_network_and_its_difference():
    lines = ablation_report.table(comparisons.comparison([0.9, 0.9], [0.5, 0.5])).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "CNN and RNN (product)", "CNN alone", "CNN x constant gain", "RNN alone",
    ]  # fmt: skip
    assert "90.00%" in lines[1] and "+40.00 (" in lines[2] and "+65.00 (" in lines[4]


def test_the_page_renders(browser, tmp_path):
    ablation_report.write(tmp_path, comparisons.comparison([0.9, 0.9], [0.5, 0.5]))
    browser.get((tmp_path / "ablation.html").as_uri())
    pages.assert_renders(browser, tmp_path / "page.png")
    assert "The RNN helps" in browser.page_source


def test_notes_are_shown(tmp_path):
    noted = dataclasses.replace(comparisons.comparison([0.9], [0.5]), notes=("Read this.",))
    unknown = dataclasses.replace(noted.trainings["rnn"][0], images_per_second=math.nan)
    noted.trainings["rnn"] = [unknown]
    ablation_report.write(tmp_path, noted)
    assert "<p>Read this.</p>" in (tmp_path / "ablation.html").read_text()
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert found["notes"] == ["Read this."]
    rates = {row["fusion"]: row["images_per_second"] for row in found["networks"]}
    assert rates["rnn"] is None and rates["cnn"] == 9.5
