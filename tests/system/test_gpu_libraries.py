"""NVIDIA's libraries: pins, loading before TensorFlow does, and why no GPU is seen."""

import ctypes
import importlib.metadata
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import types

import markupsafe
import pytest
from packaging import requirements

from cnnrnn.system import gpu_libraries
from tests import helpers

DRIVER_FILES = ("dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A driver, whose GPUs are not hidden."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    write(tmp_path / "driver" / DRIVER_FILES[0])
    monkeypatch.setenv("CNNRNN_DRIVER_ROOT", str(tmp_path / "driver"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def without_packages(monkeypatch):
    """No nvidia-* package is installed."""
    monkeypatch.setattr(gpu_libraries, "packages", dict)
    monkeypatch.setattr(gpu_libraries, "_path", lambda name: name)


def write(path: pathlib.Path, content: bytes = b"") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def library(code=0, count=1, version=12090):
    """A stand-in for libcuda.so.1 and libnvidia-ml.so.1."""

    def store(value):
        def function(pointer):
            pointer._obj.value = value
            return 0

        return function

    def error_string(code, pointer):
        pointer._obj.value = b"system has unsupported display driver / cuda driver combination"

    def driver_version(buffer, length):
        buffer.value = b"575.57.08"
        return 0

    return types.SimpleNamespace(
        cuInit=lambda flags: code,
        cuDeviceGetCount=store(count),
        cuDriverGetVersion=store(version),
        cuGetErrorString=error_string,
        nvmlInit_v2=lambda: 0,
        nvmlSystemGetDriverVersion=driver_version,
    )


def install(monkeypatch, *, missing=(), **driver):
    """All libraries can be loaded, except for those that are missing."""
    loaded = []

    def load(name):
        if os.path.basename(name) in missing:
            raise OSError(f"{name}: cannot open shared object file")
        loaded.append(name)
        return library(**driver)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return loaded


def test_the_pins_are_what_tensorflow_requires():
    lines = (helpers.REPOSITORY / "requirements-gpu.txt").read_text().splitlines()
    pins = dict(line.split("#")[0].strip().split("==") for line in lines if line[0] != "#")
    required = [
        requirement
        for requirement in map(requirements.Requirement, importlib.metadata.requires("tensorflow"))
        if requirement.marker and requirement.marker.evaluate({"extra": "and-cuda"})
        if not requirement.marker.evaluate({"extra": ""})
    ]
    assert pins.keys() == {requirement.name for requirement in required}
    for requirement in required:
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@pytest.mark.parametrize("file", [None, *DRIVER_FILES])
def test_a_driver_is_found_by_its_files(tmp_path, monkeypatch, file):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("CNNRNN_DRIVER_ROOT", str(tmp_path))
    write(tmp_path / "dev" / "dxg")  # of any GPU in WSL
    if file:
        write(tmp_path / file)
    assert gpu_libraries.has_driver() == bool(file)


@pytest.mark.parametrize("machine, found", [("x86_64", True), ("aarch64", False), ("arm64", False)])
def test_a_driver_counts_only_where_tensorflow_can_use_it(driver, monkeypatch, machine, found):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert gpu_libraries.has_driver() == found


@pytest.mark.parametrize(
    "value, hidden",
    [(None, False), ("0", False), ("1,0", False), ("GPU-6f2", False)]
    + [("", True), ("-1", True), (" ", True), ("-1,0", True), ("NoDevFiles", True)],
)
def test_gpus_are_hidden_by_the_first_entry_of_cuda_visible_devices(monkeypatch, value, hidden):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpu_libraries.hidden() == hidden


def test_the_libraries_of_the_packages_are_loaded_from_a_folder_that_nothing_searches(
    driver, tmp_path
):
    """A library in place of cusolver is loaded, and those that are missing are named."""
    write(tmp_path / "packages" / "nvidia" / "__init__.py")
    path = write(tmp_path / "packages" / "nvidia" / "cusolver" / "lib" / "libcusolver.so.11")
    shutil.copy(markupsafe._speedups.__file__, path)  # any shared library
    write(path.parents[2] / "cufft" / "lib" / "libcufft.so.11", b"damaged" * 100)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'packages')!r})\n"
    code += "from cnnrnn.system import gpu_libraries\nprint(gpu_libraries.load())\n"
    code += f"print({str(path)!r} in open('/proc/self/maps').read())"
    command = [sys.executable, "-c", code]
    printed = subprocess.check_output(command, cwd=helpers.REPOSITORY, text=True).splitlines()
    assert "invalid ELF header" in printed[0] and "libcusolver.so.11" not in printed[0]
    assert printed[1] == "True"


def test_libraries_are_loaded_after_those_that_they_need(driver, without_packages, monkeypatch):
    loaded = install(monkeypatch)
    assert gpu_libraries.load() == {}
    needed = ("libnvJitLink.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcusparse.so.12")
    for name in needed:
        assert loaded.index(name) < loaded.index("libcusolver.so.11")


@pytest.mark.parametrize("variable", ["CNNRNN_DRIVER_ROOT", "CUDA_VISIBLE_DEVICES"])
def test_nothing_is_loaded_without_a_driver_or_with_hidden_gpus(driver, monkeypatch, variable):
    loaded = install(monkeypatch)
    monkeypatch.setenv(variable, {"CNNRNN_DRIVER_ROOT": "/nowhere"}.get(variable, "-1"))
    assert gpu_libraries.load() == {} and loaded == []


@pytest.mark.parametrize(
    "machine, reason, fix",
    [
        ({"missing": {"libcuda.so.1"}}, "libcuda.so.1: cannot open", "--gpus all"),
        ({"code": 803}, "unsupported display driver", "nvidia-smi"),
        ({"count": 0}, "the driver lists none", "nvidia-smi"),
        ({"version": 11040}, "is for CUDA 11", "525"),
        ({"missing": {"libcudart.so.12"}}, "are not installed", "requirements-gpu.txt"),
        ({"missing": {"libnvidia-ml.so.1"}}, "libnvidia-ml.so.1: cannot open", "utility"),
        ({}, "accepts none", "TF_CPP_MIN_LOG_LEVEL=0"),
    ],
)
def test_each_problem_has_its_reason_and_fix(
    driver, without_packages, monkeypatch, machine, reason, fix
):
    install(monkeypatch, **machine)
    problem = gpu_libraries.problem()
    assert reason in problem[0] and fix in problem[1]


@pytest.fixture
def outside_a_clone(monkeypatch, tmp_path):
    """No requirements-gpu.txt, as in an installed wheel."""
    monkeypatch.setattr(gpu_libraries, "_REQUIREMENTS", tmp_path / "requirements-gpu.txt")


def pip_arguments(fix: str) -> list[str]:
    """What a fix gives to pip, which must be that of this environment."""
    run, *command = shlex.split(fix)
    assert (run, *command[:4]) == ("Run:", sys.executable, "-m", "pip", "install")
    return command[4:]


REQUIREMENTS = str(helpers.REPOSITORY.resolve() / "requirements-gpu.txt")
EXTRA = [f"tensorflow[and-cuda]=={importlib.metadata.version('tensorflow')}"]
EXTRA += ["nvidia-cudnn-cu12<9.11"]


def test_missing_libraries_are_installed_as_in_a_clone(driver, without_packages, monkeypatch):
    install(monkeypatch, missing={"libcudart.so.12"})
    assert pip_arguments(gpu_libraries.problem()[1]) == ["-r", REQUIREMENTS]


def test_missing_libraries_are_installed_as_with_a_wheel(
    driver, without_packages, outside_a_clone, monkeypatch
):
    install(monkeypatch, missing={"libcudart.so.12"})
    assert pip_arguments(gpu_libraries.problem()[1]) == EXTRA


def cannot_load(monkeypatch, name: str, **versions: str) -> list[str]:
    """pip's arguments in the fix for an nvidia-* package's library that cannot be loaded."""
    installed = {f"nvidia-{package}-cu12": version for package, version in versions.items()}
    monkeypatch.setattr(gpu_libraries, "packages", lambda: installed)
    monkeypatch.setattr(gpu_libraries, "_path", lambda name: f"/site-packages/{name}")
    install(monkeypatch, missing={name})
    reason, fix = gpu_libraries.problem()
    assert f"cannot load {name} (/site-packages/{name}: cannot" in reason
    return pip_arguments(fix)


REINSTALL = [
    "--force-reinstall",
    "--no-deps",
]  # it would reinstall what it requires, in any version


def test_a_damaged_library_is_reinstalled_in_the_version_of_the_clone(driver, monkeypatch):
    arguments = cannot_load(monkeypatch, "libcudnn.so.9", cudnn="9.28.0.1")
    assert arguments == [*REINSTALL, "-c", REQUIREMENTS, "nvidia-cudnn-cu12"]


def test_a_damaged_library_of_a_wheel_is_reinstalled_in_a_suitable_version(
    driver, outside_a_clone, monkeypatch
):
    arguments = cannot_load(monkeypatch, "libcudnn.so.9", cudnn="9.28.0.1")
    assert arguments == [*REINSTALL, "nvidia-cudnn-cu12<9.11"]
    arguments = cannot_load(monkeypatch, "libcusolver.so.11", cusolver="11.7.5.82")
    assert arguments == [*REINSTALL, "nvidia-cusolver-cu12==11.7.5.82"]


def test_a_library_whose_package_is_missing(driver, monkeypatch):
    assert cannot_load(monkeypatch, "libcufft.so.11", cudnn="9.10") == ["-r", REQUIREMENTS]


@pytest.mark.parametrize("driver_finds", [{"code": 100}, {"count": 0}])
def test_an_index_that_does_not_exist_is_named(driver, monkeypatch, driver_finds):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    install(monkeypatch, **driver_finds)
    assert "CUDA_VISIBLE_DEVICES=7 names no GPU" in gpu_libraries.problem()[0]


def test_packages_and_driver_have_versions(tmp_path, monkeypatch):
    metadata = b"Metadata-Version: 2.1\nName: NVIDIA_cudnn_cu12\nVersion: 9.10.2.21\n"
    write(tmp_path / "nvidia_cudnn_cu12-9.10.2.21.dist-info" / "METADATA", metadata)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert gpu_libraries.packages()["nvidia-cudnn-cu12"] == "9.10.2.21"
    install(monkeypatch)
    assert gpu_libraries.driver_version() == "575.57.08"
    install(monkeypatch, missing={"libnvidia-ml.so.1"})
    assert gpu_libraries.driver_version() is None
