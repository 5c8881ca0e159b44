"""What a phase was made with: for whoever asks where a figure comes from, or makes it again."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.models import xception_weights

_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "absl-py", "pillow")
# What may differ without a consequence.
_OF_NO_MATTER = ("command", "started_from", "dataset.name", "xception_weights.description")


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
        devices: as `runtime.describe` has it.
        started_from: a sentence.
        weights: where the CNN's weights came from, None if out of a run.
    """
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "devices": devices,
        "precision": config.training.precision,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "git_commit": git_commit(),
        "seed": config.run.seed,
        "dataset": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "training_examples": len(data.train),
            "validation_examples": len(data.validation),
        },
        "started_from": started_from,
        "xception_weights": vars(weights) if weights else None,
        "batchnorm": config.training.phase2_batchnorm if phase.train_cnn else "frozen",
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What two manifests differ in, as 'packages.keras: 3.15.0 then, 3.15.1 now'."""
    then, today = _flat(before), _flat(now)
    return [
        f"{name}: {then.get(name)} then, {today.get(name)} now"
        for name in sorted(then.keys() | today.keys())
        if then.get(name) != today.get(name) and name not in _OF_NO_MATTER
    ]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: leaf
        for part, nested in value.items()
        for key, leaf in _flat(nested, f"{name}.{part}" if name else part).items()
    }


def _processor() -> str:
    """Its name, and the widest vectors it has: they decide how sums are rounded."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    widest = next((flag for flag in ("avx512f", "avx2", "avx", "sse4_2") if flag in flags), "")
    return f"{name} {widest}".strip()


def git_commit() -> str | None:
    """The commit of this program, with '+' if it has been changed since; None outside git."""
    here = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
