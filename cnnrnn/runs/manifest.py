"""Reproducibility manifest: versions, devices, data and weights that a phase was trained with."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import xception_weights
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import gpu_libraries, processor

_PACKAGES = {  # distribution -> a module that it installs
    "tensorflow": "tensorflow",
    "keras": "keras",
    "tensorflow-datasets": "tensorflow_datasets",
    "numpy": "numpy",
    "absl-py": "absl",
    "pillow": "PIL",
}
# Differences in these do not change the result.
_IGNORED = (
    *("command", "started_from", "first_sample", "dataset.name"),
    *("xception_weights.kind", "xception_weights.description"),  # where the file came from
)


def describe(
    phase: phases.Phase,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    devices: str,
    started_from: str,
    weights: xception_weights.WeightsSource | None,
) -> dict[str, Any]:
    """The manifest of a phase on this machine, as JSON.

    Args:
        phase, config, data: what is trained.
        devices: from `devices.describe`.
        started_from: description of the initial weights.
        weights: source of the CNN's pretrained weights; None if a run's weights were loaded, or
            without a CNN.
    """
    return {
        "command": " ".join(sys.argv),
        **of_machine(),
        "devices": devices,
        "precision": config.training.precision,
        "seed": config.run.seed,
        "dataset": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "training_examples": len(data.train),
            "validation_examples": len(data.validation),
        },
        "started_from": started_from,
        "xception_weights": vars(weights) if weights else None,
        "batchnorm": config.finetuning.phase2_batchnorm if phase.train_cnn else "frozen",
    }


def of_machine() -> dict[str, Any]:
    """What a manifest says of this machine and its software; "gpus" only if it has some."""
    gpus = _gpus()
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor.describe(),
        "cores": _cores(),
        "packages": {name: _version(name, module) for name, module in _PACKAGES.items()},
        "git_commit": git_commit(),
        **({"gpus": gpus} if gpus else {}),
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences of two manifests, as 'packages.keras: 3.15.0 then, 3.15.1 now'."""
    then, today = _flat(before), _flat(now)
    if "devices" in then:  # earlier versions recorded "2 parts of the CPU"
        then["devices"] = str(then["devices"]).replace("parts of the CPU", "logical CPUs")
    return [
        f"{name}: {then.get(name)} then, {today.get(name)} now"
        for name in sorted(then.keys() | today.keys())
        if then.get(name) != today.get(name) and name not in _IGNORED
    ]


def mixed(manifests: Sequence[dict[str, Any]]) -> list[str]:
    """The differences of several manifests from the first one, except for the seed.

    Those without pretrained weights of the CNN are compared in everything else: a network without
    a CNN has none.
    """
    weights = next(filter(None, (each.get("xception_weights") for each in manifests)), None)
    first, *others = (
        {**each, "seed": 0, "xception_weights": each.get("xception_weights") or weights}
        for each in manifests
    )
    return sorted({text for other in others for text in differences(first, other)})


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: leaf
        for part, nested in value.items()
        for key, leaf in _flat(nested, f"{name}.{part}" if name else part).items()
    }


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _gpus() -> dict[str, Any]:
    """The GPUs of this machine, also those hidden from this process, and what computes on them."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return {}
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    build = tf.sysconfig.get_build_info()
    return {
        "names": [each.get("device_name") for each in details],
        "compute_capability": [
            ".".join(map(str, each.get("compute_capability", ()))) for each in details
        ],
        "driver": gpu_libraries.driver_version(),
        "tensorflow_built_with": {name: build.get(f"{name}_version") for name in ("cuda", "cudnn")},
        "tf32": devices_lib.allows_tf32(),
        "packages": gpu_libraries.packages(),
    }


@functools.cache  # importlib parses the whole description of the package, for 60 ms
def _version(distribution: str, module: str) -> str:
    """The version of a package, with the name of the distribution if that is another one."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        others = importlib.metadata.packages_distributions().get(module, [])
        versions = sorted({f"{importlib.metadata.version(name)} ({name})" for name in others})
        return ", ".join(versions) or "unknown"


def git_commit() -> str | None:
    """The commit of this program, with '+' if files have changed since.

    None outside git, and if the package is installed somewhere inside another repository, e.g. in
    its .venv.
    """
    root = pathlib.Path(__file__).resolve().parents[2]
    # In a hook of git, these name another repository.
    environment = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.strip()

    try:
        if pathlib.Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
