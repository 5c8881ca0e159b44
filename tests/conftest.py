"""Fixtures of all tests. TensorFlow and Selenium are imported by the fixtures that need them.

The user's cache is not touched, except that its ImageNet weights are read.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The servers of tests are on this machine.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

# isort: split
import contextlib
import fcntl
import functools
import gc
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from absl import flags

from cnnrnn import config
from cnnrnn.settings import paths
from cnnrnn.system import console, gpu_libraries
from tests import helpers


def pytest_configure(config):
    """Hides GPUs, except from the tests that are marked `gpu`: `pytest -m gpu` runs these alone.

    The results of the others do not depend on the machine then. No module has imported TensorFlow.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def pytest_collection_modifyitems(config, items):
    """The longer tests run last, so that a failure shows early. Tests of GPUs run alone."""
    items.sort(key=lambda item: ("slow" in item.keywords, "thorough" in item.keywords))
    reason = "needs a GPU" if config.option.markexpr == "gpu" else "run with -m gpu"
    if config.option.markexpr != "gpu" or not gpu_libraries.has_driver():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """What is imported by now stays: the garbage collector need not visit it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """An empty cache with the user's ImageNet weights, which are not downloaded for each test."""
    cache = tmp_path_factory.mktemp("cache")
    weights = paths.cache_dir() / "weights"
    if weights.exists():
        (cache / "weights").symlink_to(weights.resolve())
    monkeypatch.setenv("CNNRNN_CACHE", str(cache))


@pytest.fixture(autouse=True)
def messages_are_printed():
    """As in the program: `capsys` sees what is logged."""
    console.install()


@pytest.fixture(scope="session")
def two_replicas():
    """For modules that import tests.two_cpus."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


@pytest.fixture(scope="session")
def one_replica():
    """The strategy that commands train on in this process, too."""
    from cnnrnn.system import devices

    return devices.strategy()


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    """A data set: train/ with 3 x 6 and val/ with 3 x 3 images."""
    root = tmp_path / "images"
    helpers.write_classes(root / "train", 6, seed=1)
    helpers.write_classes(root / "val", 3, seed=2)
    return root


@pytest.fixture
def no_pythonpath(monkeypatch):
    """Child processes find the package by themselves."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def small_network(monkeypatch):
    """Commands build the small network instead of the real one."""
    from cnnrnn.models import network
    from tests.small_network import small_build

    monkeypatch.setattr(network, "build", small_build)


def _write_curves_only(patch):
    from cnnrnn.training import tensorboard, train_batch, training_batches

    # They are drawn from a pipeline of their own, which takes as long to trace as that of training.
    patch.setattr(training_batches.TrainingBatches, "first", lambda _: {})
    patch.setattr(train_batch, "write", lambda *_: None)
    for name in ("start", "predictions"):
        patch.setattr(tensorboard.Summaries, name, lambda *_: None)


def draw_nothing(patch):
    """Reports have charts of one pixel, and neither curves nor images."""
    from cnnrnn.evaluation import report

    names = ("confusion", "reliability", "top1_by_class", "top5_by_class")
    one_pixel = helpers.png(np.zeros((1, 1, 3), np.uint8))
    patch.setattr(report, "_charts", lambda *_: dict.fromkeys(names, one_pixel))
    patch.setattr(report, "_curves", lambda _: {})
    patch.setattr(report._Examples, "_images", lambda *_: [])


def _small_config(images: pathlib.Path, runs_dir: pathlib.Path) -> config.Config:
    return config.Config.of(
        dataset=str(images),
        runs_dir=str(runs_dir),
        run="test",
        xception_weights="none",
        precision="float32",  # 'auto' differs from machine to machine
        epochs=(2, 2),
        batch_size=(4, 2),
    )


@functools.cache
def _preprocessing_as_written() -> dict[str, Callable]:
    """Functions of `views` by name. The first call comes before any patch of them."""
    from cnnrnn.preprocessing import views

    of_class = {name: getattr(views.Preprocessing, name) for name in ("rgb", "sequence")}
    return {"decode": views.decode, **of_class}


@functools.cache
def _traced_decode():
    import tensorflow as tf

    decode = _preprocessing_as_written()["decode"]
    return tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)])


@functools.cache
def _traced_view(name: str, preprocessing):
    import tensorflow as tf

    view = functools.partial(_preprocessing_as_written()[name], preprocessing)
    return tf.function(view, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])


def _trace_preprocessing_once(patch):
    """A run makes several input pipelines; tracing the same functions for each takes long."""
    from cnnrnn.datasets import image_check
    from cnnrnn.preprocessing import views

    # Checks of images, which run in threads, trace `views.decode` once in a process: not the
    # patched one.
    for op in image_check._ops():
        op.get_concrete_function()
    patch.setattr(views, "decode", _traced_decode())
    for name in ("rgb", "sequence"):

        def traced(preprocessing, image, name=name):
            return _traced_view(name, preprocessing)(image)

        patch.setattr(views.Preprocessing, name, traced)


def _leave_pipelines_as_written(patch):
    """Input pipelines are not optimized: in such short runs that takes longer than it saves."""
    from cnnrnn.datasets import input_pipeline

    original = input_pipeline.options

    def options():
        chosen = original()
        chosen.experimental_optimization.apply_default_optimizations = False
        return chosen

    patch.setattr(input_pipeline, "options", options)


@contextlib.contextmanager
def _graphs_as_traced():
    """Graphs run as they were traced, as in the processes of tests.small_network."""
    import tensorflow as tf

    from tests.small_network import run_graphs_as_traced

    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    run_graphs_as_traced()
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Runs main in this process, with flags that can be parsed repeatedly."""
    from cnnrnn import main

    def call(*arguments):
        monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
        code = main.main(["cnnrnn", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def complete_summaries() -> bool:
    """Whether runs write images and the graph for TensorBoard, a third of their time."""
    return False


@pytest.fixture(scope="module")
def graphs_as_traced():
    """For modules whose tests do not depend on how graphs are optimized."""
    with _graphs_as_traced():
        yield


@pytest.fixture
def complete_reports() -> bool:
    """Whether evaluations draw charts and explain mistakes, which takes most of their time."""
    return False


@pytest.fixture
def small_config(
    shared_run, tmp_path, monkeypatch, complete_summaries, complete_reports
) -> Iterator[config.Config]:
    """Settings of runs that take seconds: their images are shared, checked, and their features
    cached.
    """
    images = pathlib.Path(shared_run.data.dataset)
    copy_cache(shared_run, paths.cache_dir())
    before = _times(images)
    _trace_preprocessing_once(monkeypatch)
    _leave_pipelines_as_written(monkeypatch)
    if not complete_summaries:
        _write_curves_only(monkeypatch)
    if not complete_reports:
        draw_nothing(monkeypatch)
    with _graphs_as_traced():
        yield _small_config(images, tmp_path / "runs")
    assert _times(images) == before, "a test that changes images needs `own_images`"


def copy_cache(shared_run: config.Config, folder: pathlib.Path) -> None:
    """Copies what is known of the shared images, and the features of their CNN."""
    cache = pathlib.Path(shared_run.run.runs_dir).with_name("cache")
    shutil.copytree(cache, folder, dirs_exist_ok=True)


def _times(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def data(small_config):
    """The data set of `small_config`."""
    from cnnrnn.datasets import dataset

    return dataset.load(small_config)


@pytest.fixture
def own_data(images):
    """The same images, for tests that damage them."""
    from cnnrnn.datasets import dataset

    return dataset.load(config.Config.of(dataset=str(images)))


@pytest.fixture
def instant_steps(monkeypatch):
    """Training and evaluation steps that compute nothing, for tests of what surrounds them."""
    from cnnrnn.training import steps
    from tests import instant

    monkeypatch.setattr(steps, "make_train_step", instant.make_train_step)
    monkeypatch.setattr(steps, "make_eval_step", instant.make_eval_step)


@pytest.fixture
def instant_training(instant_steps, monkeypatch):
    """Like `instant_steps`; batches have no images, so a test that computes features fails."""
    from cnnrnn.datasets import input_pipeline
    from tests import instant

    monkeypatch.setattr(input_pipeline, "training", instant.training)
    monkeypatch.setattr(input_pipeline, "evaluation", instant.evaluation)
    monkeypatch.setattr(input_pipeline, "distribute", lambda batches, _: iter(batches))


@pytest.fixture
def own_images(small_config, images, tmp_path) -> config.Config:
    """Like `small_config`, with `images`, of which nothing is known or cached."""
    return small_config.replace(dataset=str(images), feature_cache=str(tmp_path / "features"))


@contextlib.contextmanager
def fast_runs(cache: pathlib.Path, *, optimized_graphs: bool = False):
    """For fixtures of a wider scope: the small network, as in runs with `small_config`."""
    from cnnrnn.models import network
    from tests.small_network import small_build

    console.install()  # the fixture may come before `messages_are_printed`
    graphs = contextlib.nullcontext() if optimized_graphs else _graphs_as_traced()
    with pytest.MonkeyPatch.context() as patch, console.captured(), graphs:
        patch.setenv("CNNRNN_CACHE", str(cache))
        patch.setattr(network, "build", small_build)
        _trace_preprocessing_once(patch)
        if not optimized_graphs:
            _leave_pipelines_as_written(patch)
        _write_curves_only(patch)
        yield


def _made_once(tmp_path_factory, name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """A folder that the first process that needs it fills, for all processes of pytest-xdist."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, made = root / name, root / f"{name}.made"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory, one_replica) -> config.Config:
    """The settings of a run with phase 1, and its evaluation. Tests change copies of its folder."""
    from cnnrnn import phases
    from cnnrnn.commands import evaluate, train

    def settings_in(root):
        return _small_config(root / "images", root / "runs")

    def make(root):
        helpers.write_classes(root / "images" / "train", 6, seed=1)
        helpers.write_classes(root / "images" / "val", 3, seed=2)
        settings = settings_in(root)
        with fast_runs(root / "cache"):
            train.train((phases.PHASE1,), settings)
            shutil.copytree(settings.run_dir, root / "evaluated" / settings.run.name)
            evaluate.run((), settings.replace(runs_dir=str(root / "evaluated")))

    return settings_in(_made_once(tmp_path_factory, "shared_run", make))


@pytest.fixture
def trained(shared_run, small_config) -> config.Config:
    """The settings of a run with phase 1, in a folder of its own."""
    shutil.copytree(shared_run.run_dir, small_config.run_dir)
    return small_config


@pytest.fixture
def evaluated(shared_run, trained) -> config.Config:
    """Like `trained`, and evaluated."""
    root = pathlib.Path(shared_run.run.runs_dir).parent
    shutil.copytree(root / "evaluated", trained.run.runs_dir, dirs_exist_ok=True)
    return trained


@pytest.fixture(scope="session")
def shared_export(tmp_path_factory) -> pathlib.Path:
    """The folder of an export of the small network. Tests change copies of it."""
    from tests.export import small_export

    return _made_once(tmp_path_factory, "shared_export", small_export.write)


@pytest.fixture(
    params=[pytest.param(1280, id="laptop", marks=pytest.mark.slow), pytest.param(390, id="phone")]
)
def browser(request, tmp_path):
    """Chromium, as wide as on a laptop and on a phone."""
    from selenium import webdriver

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
