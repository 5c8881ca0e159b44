"""Shared fixtures: small data sets on disk, a small network, two replicas on one CPU.

The cache of the user who runs the tests is left alone, but for the ImageNet weights.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cnnrnn  # noqa: F401  before TensorFlow: it says which kernels are to be used

# isort: split
import io
import pathlib
import shutil

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from selenium import webdriver
from small_network import small_build

from cnnrnn import config
from cnnrnn.models import network as network_lib

# Before anything touches a device; a process can have one set of logical devices only.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

REPOSITORY = pathlib.Path(__file__).parent.parent
CLASSES = ("black", "gray", "white")
REAL_ARCHIVE = pathlib.Path(
    os.environ.get(
        "CNNRNN_TINY_IMAGENET_ZIP", REPOSITORY / "../shared/datasets/tiny-imagenet-100-A.zip"
    )
).resolve()


def pytest_collection_modifyitems(items):
    """The slow ones last, so that a fault shows early."""
    items.sort(key=lambda item: "slow" in item.keywords)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """An empty cache, but for the user's ImageNet weights: those are not fetched anew each time."""
    cache = tmp_path_factory.mktemp("cache")
    weights = config.cache_dir() / "weights"
    if weights.exists():
        (cache / "weights").symlink_to(weights.resolve())
    monkeypatch.setenv("CNNRNN_CACHE", str(cache))


@pytest.fixture(scope="session")
def two_replicas():
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


@pytest.fixture(scope="session")
def one_replica():
    return tf.distribute.MirroredStrategy(["/cpu:0"])


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, format="png")
    return buffer.getvalue()


def write_classes(root: pathlib.Path, per_class: int, seed: int = 0) -> pathlib.Path:
    """A tree of class folders whose classes differ in brightness, and no two pictures alike."""
    rng = np.random.default_rng(seed)
    for brightness, name in zip((30, 128, 225), CLASSES, strict=True):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(rng.normal(brightness, 12, (9, 7, 3)), 0, 255).astype(np.uint8)
            (folder / f"{name}_{i:02d}.png").write_bytes(png(pixels))
    return root


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    """train/ with 3 x 6 and val/ with 3 x 3 pictures."""
    root = tmp_path / "pictures"
    write_classes(root / "train", 6, seed=1)
    write_classes(root / "val", 3, seed=2)
    return root


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setattr(network_lib, "build", small_build)


@pytest.fixture
def small_config(pictures, tmp_path) -> config.Config:
    """Settings for runs that take seconds."""
    return config.Config.of(
        dataset=str(pictures),
        runs_dir=str(tmp_path / "runs"),
        run="test",
        xception_weights="none",
        precision="float32",  # 'auto' differs from machine to machine
        epochs=(2, 2),
        batch_size=(4, 2),
    )


@pytest.fixture(params=[1280, 390], ids=["laptop", "phone"])
def browser(request, tmp_path):
    """Chromium, at the width of a laptop and of a phone."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location, driver = programs
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    size = {"width": request.param, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield chromium
    chromium.quit()


def assert_looks_right(browser, screenshot: pathlib.Path) -> None:
    """There is something on the page, and nothing runs over its edge."""
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    browser.save_screenshot(str(screenshot))
    assert np.ptp(tf.io.decode_png(screenshot.read_bytes()).numpy()[..., :3].astype(int)) > 200
    assert not [said for said in browser.get_log("browser") if said["level"] == "SEVERE"]
