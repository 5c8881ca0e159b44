"""NVIDIA's driver and libraries: loads the libraries for TensorFlow, and says why it sees no GPU.

Imports only the standard library, so that a process that must not import cnnrnn can run this file.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shlex
import sys

# The driver is there if one of these exists: on Linux, and in WSL. /dev/dxg does not tell: WSL has
# it for the GPUs of every manufacturer. /proc/driver/nvidia does not tell, either: a container sees
# it without access to the GPUs.
_DRIVER_FILES = ("dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1")
# The libraries that TensorFlow 2.21 loads before it accepts a GPU, and those that they load, with
# the folder of the nvidia-* package in which each is. A library comes after those that it needs.
_LIBRARIES = {
    "libnvJitLink.so.12": "nvjitlink",
    "libnvrtc.so.12": "cuda_nvrtc",
    "libcudart.so.12": "cuda_runtime",
    "libcublasLt.so.12": "cublas",
    "libcublas.so.12": "cublas",
    "libcusparse.so.12": "cusparse",
    "libcusolver.so.11": "cusolver",
    "libcufft.so.11": "cufft",
    "libcudnn.so.9": "cudnn",
}
# Beside the package in a clone, not in an installed wheel.
_REQUIREMENTS = pathlib.Path(__file__).resolve().parents[2] / "requirements-gpu.txt"
_CUDNN = "nvidia-cudnn-cu12<9.11"  # later ones have no LSTM for compute capability below 7.5
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_DRIVER_HINT = (
    "Run nvidia-smi: if it fails, too, restart the machine or install the driver again; a "
    "container must be started with access to the GPUs (docker run --gpus all)"
)


def has_driver() -> bool:
    """Whether this machine has an NVIDIA driver that this process can reach and TensorFlow can use.

    TensorFlow for processors other than x86_64 does not use GPUs.
    CNNRNN_DRIVER_ROOT, for tests, is the folder in which its files are looked for instead of /.
    """
    root = pathlib.Path(os.environ.get("CNNRNN_DRIVER_ROOT") or "/")
    return platform.machine() == "x86_64" and any((root / name).exists() for name in _DRIVER_FILES)


def hidden() -> bool:
    """Whether the user has hidden all GPUs with CUDA_VISIBLE_DEVICES, e.g. by '' or -1."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return first in ("", "NoDevFiles") or first.startswith("-")


def load() -> dict[str, str]:
    """Loads the libraries into this process; does nothing without a driver.

    TensorFlow does not find cusolver in the nvidia-* packages, and then uses no GPU. The system's
    loader does not search for a library whose name is loaded already. Called before TensorFlow is
    imported.

    Returns:
        The reason of each library that cannot be loaded.
    """
    if not has_driver() or hidden():
        return {}
    return {name: reason for name in _LIBRARIES if (reason := _load(_path(name)))}


def problem() -> tuple[str, str]:
    """Why TensorFlow sees no GPU although there is a driver, and what to do about it."""
    if reason := _driver_problem():
        return reason
    unloadable = load()
    installed = packages()
    if not installed and unloadable:
        return "NVIDIA's libraries are not installed", _installation()
    for name, reason in unloadable.items():
        package = f"nvidia-{_LIBRARIES[name].replace('_', '-')}-cu12"
        version = installed.get(package)
        fix = _reinstallation(package, version) if version else _installation()
        return f"cannot load {name} ({reason})", fix
    if reason := _load("libnvidia-ml.so.1"):
        return (
            f"cannot load libnvidia-ml.so.1 of the driver ({reason})",
            "In a container, set NVIDIA_DRIVER_CAPABILITIES=compute,utility; otherwise install the "
            "driver again",
        )
    return (
        "it accepts none of the GPUs that the driver lists",
        "TF_CPP_MIN_LOG_LEVEL=0 shows its messages",
    )


def packages() -> dict[str, str]:
    """The installed nvidia-* packages and their versions, by name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith("nvidia-"):
            found.setdefault(name, distribution.version)  # the first one is imported
    return dict(sorted(found.items()))


def driver_version() -> str | None:
    """The version of the driver, e.g. "575.57.08"; None if it does not tell."""
    try:
        management = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    version = ctypes.create_string_buffer(81)
    if management.nvmlInit_v2() or management.nvmlSystemGetDriverVersion(version, 81):
        return None
    return version.value.decode()


def _driver_problem() -> tuple[str, str] | None:
    """Initializes the driver as TensorFlow does; the reason and the fix if that fails."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"cannot load libcuda.so.1 of the driver ({error})", _DRIVER_HINT
    code = cuda.cuInit(0)
    text, count, version = ctypes.c_char_p(), ctypes.c_int(), ctypes.c_int()
    if not code:
        cuda.cuDeviceGetCount(ctypes.byref(count))
        cuda.cuDriverGetVersion(ctypes.byref(version))
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        if code == _NO_DEVICE or (not code and not count.value):
            reason = f"CUDA_VISIBLE_DEVICES={visible} names no GPU of this machine"
            return reason, "nvidia-smi lists them"
    if code:
        cuda.cuGetErrorString(code, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode(errors="replace")
        return f"the driver reports an error: {reason} ({code})", _DRIVER_HINT
    if not count.value:
        return "the driver lists none", _DRIVER_HINT
    if version.value < 12000:
        reason = f"the driver is for CUDA {version.value // 1000}, and TensorFlow needs CUDA 12"
        return reason, "Install version 525 of the driver, or a later one"
    return None


def _installation() -> str:
    """The fix that installs all libraries."""
    if _REQUIREMENTS.exists():
        return _pip("-r", str(_REQUIREMENTS))
    return _pip(f"tensorflow[and-cuda]=={_version('tensorflow')}", _CUDNN)


def _reinstallation(package: str, version: str) -> str:
    """The fix that installs a package again, in a version that suits the others."""
    options = ("--force-reinstall", "--no-deps")  # those that it requires could become newer ones
    if _REQUIREMENTS.exists():
        return _pip(*options, "-c", str(_REQUIREMENTS), package)
    return _pip(*options, _CUDNN if _CUDNN.startswith(package) else f"{package}=={version}")


def _pip(*arguments: str) -> str:
    return "Run: " + shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def _path(name: str) -> str:
    """A library's path in the nvidia-* packages; its name if they do not have it."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = pathlib.Path(folder, _LIBRARIES[name], "lib", name)
        if path.exists():
            return str(path)
    return name  # the system's loader searches for it


def _load(path: str) -> str:
    """Loads a library; returns the reason if that fails, else ''."""
    try:
        ctypes.CDLL(path)
    except OSError as error:
        return str(error)
    return ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "2.21.0"
