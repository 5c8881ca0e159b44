"""Checks of an HTML page in a browser."""

import pathlib

import numpy as np
import PIL.Image


def assert_renders(browser, screenshot: pathlib.Path) -> None:
    """Asserts that the page is not blank, does not scroll sideways, and logs no error."""
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    browser.save_screenshot(str(screenshot))
    assert np.ptp(np.asarray(PIL.Image.open(screenshot).convert("RGB")).astype(int)) > 200
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
