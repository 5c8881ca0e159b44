"""The wheel: its content, and the `cnnrnn` script in a new environment."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from tests import helpers

pytestmark = pytest.mark.thorough  # a wheel is built and installed

SOURCES = ("cnnrnn", "data", "pyproject.toml", "setup.py", "README.md")
# The script is unchanged; Python runs this first. small_network is tests/small_network.py.
SMALL_NETWORK = """
import os
if "CNNRNN_SMALL_NETWORK" in os.environ:
    import small_network
    from cnnrnn.models import network
    network.build = small_network.small_build
    small_network.run_graphs_as_traced()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """Built from a copy, because setuptools writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = helpers.REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(build, cwd=folder, check=True)
    (built,) = (folder / "dist").glob("cnnrnn-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> pathlib.Path:
    """A new environment with the wheel; other packages come from this one, as if installed."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = pathlib.Path(subprocess.check_output([python, "-c", code], text=True).strip())
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copy(helpers.REPOSITORY / "tests" / "small_network.py", packages)
    (packages / "sitecustomize.py").write_text(SMALL_NETWORK)
    return folder


@pytest.fixture
def call(environment, tmp_path):
    """Runs a program of the environment in an empty folder, without PYTHONPATH."""
    cwd = tmp_path / "empty"
    cwd.mkdir()

    def run(program, *arguments, **changes):
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=cwd,
            env=inherited | changes,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_has_templates_and_data_sets_but_no_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = helpers.REPOSITORY / "cnnrnn"
    files = {
        path.relative_to(package.parent).as_posix()
        for folder in (package, package / "data")  # which is a link
        for path in folder.rglob("[!.]*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    left_out = ("_test.py", "dummy.py")
    assert {name for name in files if not name.endswith(left_out)} <= names
    top = {name.split("/")[0] for name in names}
    assert top == {"cnnrnn", *(name for name in top if name.endswith(".dist-info"))}
    assert not [name for name in names if "test" in name or "dummy" in name]


def test_import_and_help(call, environment):
    location = call("python", "-c", "import cnnrnn; print(cnnrnn.__file__)")
    assert pathlib.Path(location.strip()).is_relative_to(environment)
    assert "  phase1 " in call("cnnrnn", "help")
    assert "--epochs" in call("cnnrnn", "phase1", "--help")


@pytest.mark.slow  # the tests above cover what is installed
def test_the_recipe_runs_from_an_empty_folder(call, tmp_path):
    """The digits, so that their builder and its metadata come from the wheel."""
    flags = [
        "--run=installed",
        "--xception_weights=none",
        "--train_per_class=4",
        "--validation_per_class=2",
        "--epochs=1",
        "--batch_size=4",
    ]
    output = call("cnnrnn", "phase1", *flags, CNNRNN_SMALL_NETWORK="1")
    assert "103,256,716" not in output and "phase1" in output
    run = tmp_path / "empty" / "runs" / "installed"
    for name in (
        "config.json",
        "manifest.json",
        "best/phase1.json",
        "checkpoints",
        "events",
    ):
        assert (run / name).exists(), name
    assert json.loads((run / "config.json").read_text())["data"]["dataset"] == "digits"
    prepared = pathlib.Path(os.environ["CNNRNN_CACHE"]) / "datasets"
    (info,) = prepared.rglob("dataset_info.json")
    recorded = json.loads(info.read_text())
    assert recorded["moduleName"].startswith("cnnrnn.data.digits")
    assert "handwritten digits" in recorded["description"]
