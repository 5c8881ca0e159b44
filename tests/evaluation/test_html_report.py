"""The report page: self-contained, and in a browser the numbers of results.json."""

import dataclasses
import html.parser
import json

import numpy as np
import pytest
from selenium.webdriver.common.by import By

from cnnrnn.evaluation import confidence_intervals, html_report
from tests import pages
from tests.evaluation.report_content import report_content


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_is_self_contained_and_escapes_names():
    text = html_report.render(report_content(0.76, (0.76, 0.75, 0.01, 0.01)))
    assert "<b>&" not in text and "x/<i>.png" not in text and "x/&lt;i&gt;.png" in text
    parsed = Tags(text)
    assert parsed.sources and all(source.startswith("data:image/") for source in parsed.sources)
    assert parsed.tags.count("script") == 1 and "link" not in parsed.tags


def test_the_verdict_distinguishes_an_unused_branch_from_a_used_one():
    unused = html_report.verdict(report_content(0.76, (0.76, 0.75, 0.01, 0.01)))
    assert "No use of the RNN branch is measurable on 1,000 images" in unused
    assert "is 0.6% of their mean absolute value" in unused
    assert "The network uses its CNN branch" in unused
    assert "changes top-1 by -75.00 (-76.00 to -74.00)" in unused
    used = html_report.verdict(report_content(0.76, (0.74, 0.74, 0.01, 0.01)))
    assert "The network uses its RNN branch" in used
    worse = html_report.verdict(report_content(0.76, (0.78, 0.78, 0.01, 0.01)))
    assert "The network depends on its RNN branch, whose outputs lower its accuracy" in worse
    assert "changes top-1 by +2.00 (+1.00 to +3.00)" in worse
    few = html_report.verdict(report_content(0.76, (0.74, 0.74, 0.01, 0.01), support=5))
    assert "10 images are too few to tell whether the network uses its RNN branch" in few


def test_top5_of_up_to_five_classes_is_said_to_be_always_right():
    few = report_content(0.76, (0.76, 0.75, 0.01, 0.01))
    page = html_report.render(few)
    assert page.count("always 100%, with 2 classes") == 2
    assert "and top-5 by" not in html_report.verdict(few)
    assert 'alt="top-5 accuracy by class"' not in page
    many = dataclasses.replace(few, classes=few.classes * 3)
    page = html_report.render(many)
    assert "always 100%" not in page and "and top-5 by" in html_report.verdict(many)
    assert 'alt="top-5 accuracy by class"' in page


def test_the_page_says_nothing_of_a_branch_that_the_network_lacks():
    content = report_content(0.76, (0.76, 0.75, 0.01, 0.01))
    both = html_report.render(content)
    assert "class Grad-CAM of the CNN and saliency of the RNN's 23" in both.replace("&#39;", "'")
    assert "branches are multiplied" in both and " ablate</code>" in both
    for lacking, other in (({"rnn": None}, "Grad-CAM of"), ({"cnn": None}, "saliency of")):
        text = html_report.render(dataclasses.replace(content, **lacking))
        assert ("Grad-CAM of" in text) != ("saliency of" in text) and other in text
        assert "branches are multiplied" not in text and " ablate</code>" not in text


def test_a_number_that_is_not_finite_is_a_dash():
    content = report_content(0.76, (0.76, 0.75, 0.01, 0.01))
    infinite = confidence_intervals.mean(np.array([1.5]))
    text = html_report.render(dataclasses.replace(content, loss=infinite, top1=infinite))
    assert "95% CI: – to –" in text and "inf" not in text.split("<script>")[0]


def test_sections_without_content_have_no_heading():
    content = report_content(0.76, (0.76, 0.75, 0.01, 0.01))
    charts = {name: png for name, png in content.charts.items() if "curves" not in name}
    headings = ("<h2>Training</h2>", "<h2>Most confident mistakes</h2>", "From left to right")
    page = html_report.render(content)
    assert [page.count(heading) for heading in headings] == [1, 1, 1]
    page = html_report.render(dataclasses.replace(content, charts=charts, mistakes=[]))
    assert [page.count(heading) for heading in headings] == [0, 0, 0]
    assert "<h2>Most confused classes</h2>" in page


@pytest.mark.thorough
def test_long_class_names_do_not_cover_the_images_beside_them(browser, tmp_path):
    content = report_content(0.76, (0.76, 0.75, 0.01, 0.01))
    (pair,) = content.confusions
    long = [pair | {"true": "Acrocephalus_" * 9, "predicted": "Schoenobaenus_" * 9}]
    path = tmp_path / "report.html"
    path.write_text(html_report.render(dataclasses.replace(content, confusions=long)))
    browser.get(path.as_uri())
    text = "document.querySelector('.pair > p')"
    assert browser.execute_script(f"return {text}.scrollWidth <= {text}.clientWidth")


@pytest.mark.thorough
def test_a_browser_shows_the_numbers_of_results_json(evaluated_run, browser, tmp_path):
    results = json.loads((evaluated_run / "results.json").read_text())
    browser.get((evaluated_run / "evaluation" / "report.html").as_uri())

    def text(id):
        return browser.find_element(By.ID, id).text

    for name in ("top1", "top5"):
        assert text(name.replace("top", "top-")) == f"{results['validation'][name]:.2%}"
    for name in ("recall", "top5", "precision", "f1"):
        assert text(f"macro-{name}") == f"{results['macro'][name]:.2%}"
    assert text("loss") == f"{results['validation']['loss']:.4f}"
    assert text("verdict") == results["branches"]["verdict"]
    assert_ablations_are_shown(results["branches"]["ablations"], browser)
    pages.assert_renders(browser, tmp_path / "page.png")
    assert_classes_are_sorted_and_searched(browser)


def assert_ablations_are_shown(ablations, browser):
    lines = browser.find_elements(By.CSS_SELECTOR, "#ablations tbody tr")
    for line, ablation in zip(lines, ablations, strict=True):
        name, top1, top5, _, drop, _ = (cell.text for cell in line.find_elements(By.TAG_NAME, "td"))
        assert name == ablation["name"]
        assert [top1, top5] == [f"{ablation[key]:.2%}" for key in ("top1", "top5")]
        if ablation is not ablations[0]:
            ends = [f"{100 * ablation['top1_drop'][end]:.2f}" for end in ("value", "low", "high")]
            assert drop == "{} ({} to {})".format(*ends)
    table = "document.getElementById('ablations').parentElement"
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
