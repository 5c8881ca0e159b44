"""The server as a process of its own, asked over HTTP and through its page."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from cnnrnn import config as config_lib
from cnnrnn import errors, metrics
from cnnrnn.commands import serve
from cnnrnn.export import saved_model
from cnnrnn.runs import best_weights
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed
from tests import bad_images, helpers, pages, small_network

NAMES = ("cat", "<b>dog</b>", "bird")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    best = best_weights.Best(None, "", NAMES, "phase1", 1, metrics.Means(0, 0, 0, 1))
    classifier = classifier_lib.Classifier(small_network.small_build(3), NAMES, "bilinear", best)
    target = tmp_path_factory.mktemp("run") / "export"
    with checksummed.writing(target, {"resize_method": "bilinear"}) as folder:
        saved_model.write(
            classifier, folder / "saved_model", top=2, max_pixels=1_000_000, notes={"made": "here"}
        )
    return target


@pytest.fixture(scope="module")
def address(export):
    """Where a server listens; in the end it has to stop when asked to, whoever is still sending."""
    program = [sys.executable, "-m", "cnnrnn.main", "serve", f"--model={export}", "--port=0"]
    settings = {
        "cwd": helpers.REPOSITORY,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "PYTHONUNBUFFERED": "1"},
    }
    with subprocess.Popen(program, **settings) as server:
        address = next(line.split()[1] for line in server.stdout if line.startswith("  page"))
        yield address
        place = urllib.parse.urlsplit(address)
        with socket.create_connection((place.hostname, place.port)) as stalled:
            stalled.sendall(b"POST /explain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            time.sleep(0.5)
            server.terminate()
            assert server.wait(60) == 128 + signal.SIGTERM


def test_it_listens_on_this_machine_alone_and_is_well(address):
    assert address.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(f"{address}health").read() == b"ok\n"


def test_a_person_drops_a_image_and_sees_what_it_is(address, browser, tmp_path):
    good, other, bad = (tmp_path / name for name in ("good.jpg", "other.png", "bad.jpg"))
    good.write_bytes(bad_images.JPEG)
    other.write_bytes(bad_images.PNG)
    bad.write_bytes(b"no image")
    browser.get(address)
    file, state, figure = (browser.find_element(By.ID, id) for id in ("file", "state", "figure"))
    wait = WebDriverWait(browser, 60)
    file.send_keys(str(good))
    wait.until(lambda _: state.text == "good.jpg" and figure.is_displayed())
    said = [line.text.split() for line in browser.find_elements(By.CSS_SELECTOR, "#classes li")]
    assert len(said) == 2 and {name for name, *_ in said} <= set(NAMES)
    assert int(figure.get_property("naturalWidth")) > 500
    pages.assert_renders(browser, tmp_path / "page.png")
    # Two at once: what is shown is of the last.
    file.send_keys(str(good))
    file.send_keys(str(other))
    wait.until(lambda _: state.text == "other.png" and figure.is_displayed())
    assert len(browser.find_elements(By.CSS_SELECTOR, "#classes li")) == 2
    file.send_keys(str(bad))
    wait.until(lambda _: state.get_attribute("class") == "bad")
    assert "no image" in state.text and not figure.is_displayed()


def test_without_an_export_there_is_nothing_to_serve(tmp_path):
    with pytest.raises(errors.UsageError, match="is no export"):
        serve.run((), config_lib.Config.of(model=str(tmp_path)))
