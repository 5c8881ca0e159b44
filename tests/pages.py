"""Checks of a web page in a browser."""

import pathlib

import numpy as np
import PIL.Image


def assert_renders(browser, screenshot: pathlib.Path) -> None:
    """The page shows something, nothing runs over its edge, and it reports no error."""
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    browser.save_screenshot(str(screenshot))
    assert np.ptp(np.asarray(PIL.Image.open(screenshot).convert("RGB")).astype(int)) > 200
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
