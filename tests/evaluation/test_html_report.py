"""The report as a browser shows it: its figures are those of results.json, at both widths."""

import dataclasses
import html.parser
import json
import pathlib

import numpy as np
import pytest
from selenium.webdriver.common.by import By

from cnnrnn.commands import evaluate, train
from cnnrnn.evaluation import branch_ablation, class_scores, confidence_intervals, html_report
from cnnrnn.runs import event_files
from tests import pages


def content_of(top1, dealt, names=("a", "b"), support=500):
    interval = confidence_intervals.Interval
    still = branch_ablation.Branch(mean=0.88, magnitude=0.88, spread=0.005)
    moving = branch_ablation.Branch(mean=0.4, magnitude=0.4, spread=0.3)
    nothing = interval(0.0, -0.01, 0.01)
    trials = [branch_ablation.Trial("as trained", 1.0, top1, 0.95, nothing, nothing)]
    for number, value in enumerate(dealt):
        cost = interval(top1 - value, top1 - value - 0.01, top1 - value + 0.01)
        trials.append(branch_ablation.Trial(f"silenced {number}", 1.0, value, 0.95, cost, nothing))
    image = {
        "jpeg": b"x",
        "path": "x/<i>.png",
        "true": "<b>&",
        "predicted": names[1],
        "confidence": 0.9,
    }
    return html_report.Content(
        title="<script>alert(1)</script>",
        subtitle="of a test",
        loss=interval(1.0, 0.9, 1.1),
        top1=interval(top1, top1 - 0.02, top1 + 0.02),
        top5=interval(0.95, 0.93, 0.97),
        chance=0.5,
        classes=[
            class_scores.ClassScore(name, support, float("nan"), 0.5, 0.5, 1.0) for name in names
        ],
        confusions=[
            {"true": "a", "predicted": "b", "count": 3, "of": 5, "images": [image]},
        ],
        mistakes=[image],
        calibration_error=0.05,
        bins=[class_scores.Bin(0.9, 1.0, 5, 0.95, 0.9)],
        cnn=moving,
        rnn=still,
        trials=trials,
        images={name: b"png" for name in ("confusion", "reliability", "top1", "top5")},
        manifest={"phase1": {"python": "3.11"}},
    )


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def test_nothing_comes_from_elsewhere_and_nothing_a_user_named_is_run():
    parsed = Tags(html_report.render(content_of(0.76, (0.76, 0.75, 0.01, 0.01))))
    assert parsed.sources and all(source.startswith("data:image/") for source in parsed.sources)
    assert parsed.tags.count("script") == 1 and "link" not in parsed.tags


def test_the_verdict_tells_an_idle_branch_from_a_working_one():
    said = html_report.verdict(content_of(0.76, (0.76, 0.75, 0.01, 0.01)))
    assert "The network makes no use of its RNN branch that 1,000 images could show" in said
    assert "by 0.6% of their size" in said
    assert "The network uses its CNN branch" in said
    assert "costs 75.00 (74.00 to 76.00) percentage points of top-1" in said
    said = html_report.verdict(content_of(0.76, (0.74, 0.74, 0.01, 0.01)))
    assert "The network uses its RNN branch" in said
    said = html_report.verdict(content_of(0.76, (0.74, 0.74, 0.01, 0.01), support=5))
    assert "uses its RNN branch cannot be told by 10 images" in said


def test_a_figure_that_does_not_exist_is_a_dash():
    content = content_of(0.76, (0.76, 0.75, 0.01, 0.01))
    endless = confidence_intervals.mean(np.array([1.5]))
    text = html_report.render(dataclasses.replace(content, loss=endless, top1=endless))
    assert "95 %: – to –" in text and "inf" not in text.split("<script>")[0].replace("info", "")


@pytest.fixture
def report(small_network, small_config, one_replica, monkeypatch) -> pathlib.Path:
    train.phase1((), small_config)
    evaluate.run((), small_config)
    return small_config.run_dir


def test_tensorboard_shows_the_last_evaluation_once(report, small_config):
    evaluate.run((), small_config)  # again
    results = json.loads((report / "results.json").read_text())
    points = event_files.scalars(report / "events" / "phase1" / "evaluation")
    steps = {tag: [step for name, step, _ in points if name == tag] for tag, _, _ in points}
    assert steps and all(len(found) == 1 for found in steps.values())
    figures = {tag: value for tag, _, value in points}
    assert figures["evaluation/top1"] == pytest.approx(results["validation"]["top1"])
    dealt = results["branches"]["silenced"][1]
    assert figures["evaluation/RNN dealt out at random/loss"] == pytest.approx(dealt["loss"])


def test_a_browser_shows_the_figures_of_results_json(report, browser, tmp_path):
    results = json.loads((report / "results.json").read_text())
    browser.get((report / "evaluation" / "report.html").as_uri())

    def text(id):
        return browser.find_element(By.ID, id).text

    for name in ("top1", "top5"):
        assert text(name.replace("top", "top-")) == f"{results['validation'][name]:.2%}"
    assert text("loss") == f"{results['validation']['loss']:.4f}"
    assert text("verdict") == results["branches"]["verdict"]
    assert_branches_are_those_of(results["branches"], browser)
    pages.assert_renders(browser, tmp_path / "page.png")
    assert_classes_are_sorted_and_searched(browser)


def assert_branches_are_those_of(branches, browser):
    rows = browser.find_elements(By.CSS_SELECTOR, "#trials tbody tr")
    for row, trial in zip(rows, branch_ablation["silenced"], strict=True):
        name, top1, top5, *_, cost, _ = (cell.text for cell in row.find_elements(By.TAG_NAME, "td"))
        assert [name, top1, top5] == [trial["name"], f"{trial['top1']:.2%}", f"{trial['top5']:.2%}"]
        if trial is not branch_ablation["silenced"][0]:
            ends = [f"{100 * trial['top1_cost'][end]:.2f}" for end in ("value", "low", "high")]
            assert cost == "{} ({} to {})".format(*ends)
    table = "document.getElementById('trials').parentElement"
    if browser.execute_script("return innerWidth") > 1000:
        assert browser.execute_script(f"return {table}.scrollWidth <= {table}.clientWidth")


def assert_classes_are_sorted_and_searched(browser):
    def column(number):
        cells = browser.find_elements(By.CSS_SELECTOR, f"#classes td:nth-child({number + 1})")
        return [cell.text for cell in cells if cell.is_displayed()]

    heads = browser.find_elements(By.CSS_SELECTOR, "#classes th button")
    for number, value in ((0, str), (1, lambda text: float(text.rstrip("%"))), (5, int)):
        for reverse in (False, True):
            heads[number].click()
            shown = [value(text) for text in column(number)]
            assert len(shown) == 3 and shown == sorted(shown, reverse=reverse)
    browser.find_element(By.ID, "search").send_keys("WHI")
    assert column(0) == ["white"]
