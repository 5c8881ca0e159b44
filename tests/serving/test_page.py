"""The page in a browser: what it takes, what it says, and how it looks on a phone."""

import contextlib
import socket
import threading

import pytest
import uvicorn
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from cnnrnn.serving import batcher
from tests import pages
from tests.serving import test_app

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEAAAAALAAAAAABAAEAAAICTAEAOw=="
LONG = f"{'holiday' * 30}.png"

# Drags files of these names over an element, or drops them; whether the browser would still handle
# the event itself, as it does by leaving the page.
DRAG = """
const [selector, kind, names] = arguments, dataTransfer = new DataTransfer();
for (const name of names) dataTransfer.items.add(new File(["x"], name, { type: "image/png" }));
const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
return document.querySelector(selector).dispatchEvent(event);
"""


def explain(images):
    return [{"classes": [{"class": "cat", "probability": 0.9}], "figure": PIXEL} for _ in images]


@pytest.fixture(scope="module")
def address():
    """The URL of a server whose answers need no model."""
    application = test_app.application(explanations=batcher.Batcher(explain, 1, 4))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def page(address, browser):
    browser.get(address)
    return browser


def says(page, text):
    state = page.find_element(By.ID, "state")
    WebDriverWait(page, 30).until(lambda _: text in state.text, state.text)
    return state.get_attribute("class") != "bad"


def shown(page):
    return [line.text.split()[0] for line in page.find_elements(By.CSS_SELECTOR, "#classes li")]


@pytest.mark.thorough
def test_an_image_is_taken_wherever_it_is_dropped(page, tmp_path):
    assert not page.execute_script(DRAG, "h1", "dragover", [])
    assert not page.execute_script(DRAG, "h1", "drop", [LONG])
    assert says(page, LONG) and shown(page) == ["cat"]
    pages.assert_renders(page, tmp_path / "page.png")  # the long name does not widen it
    assert not page.execute_script(DRAG, "body", "drop", [])
    assert not says(page, "expected an image file") and not shown(page)
    assert not page.find_element(By.ID, "figure").is_displayed()
    assert not page.execute_script(DRAG, "#drop", "drop", ["a.png", "b.png", "c.png"])
    assert says(page, "a.png (the first of 3 files)")


@pytest.mark.thorough
def test_answers_of_others_and_lost_connections_are_explained(page):
    page.execute_script("window.proxy = { status: 502, statusText: 'Bad Gateway', headers: "
                        "{ 'Content-Type': 'text/html' } }")  # fmt: skip
    for answer, message in (
        ("new Response('<p>Log in</p>')", "did not come from this server: reload the page"),
        ("new Response('{}')", "did not come from this server: reload the page"),
        ('new Response(\'{"error": "bad"}\', { status: 400 })', "x.png: bad"),
        ("new Response('{oops', proxy)", "502 Bad Gateway"),
        ("Promise.reject(new TypeError('Failed to fetch'))", "check that the server is running"),
    ):
        page.execute_script(f"window.fetch = async () => {answer}")
        page.execute_script(DRAG, "body", "drop", ["x.png"])
        assert not says(page, message)
    page.execute_script("window.signals = [], window.fetch = async (_, { signal }) => {"
                        "signals.push(signal); return new Promise(() => {}); }")  # fmt: skip
    for name in ("x.png", "y.png"):
        page.execute_script(DRAG, "body", "drop", [name])
    assert page.execute_script("return signals.map(signal => signal.aborted)") == [True, False]


@pytest.mark.thorough
def test_the_focus_is_visible_with_the_colors_of_the_system(page):
    features = [{"name": "forced-colors", "value": "active"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    outline = "return getComputedStyle(document.getElementById('drop')).outlineStyle"
    assert page.execute_script(outline) == "none"
    page.execute_script("document.getElementById('file').focus()")
    assert page.execute_script(outline) == "solid"
