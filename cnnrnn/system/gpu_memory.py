"""Memory of the GPUs that this process uses, in bytes."""

import subprocess

import tensorflow as tf

from cnnrnn.system import devices

_QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
_QUERY_SECONDS = 20  # without its daemon, nvidia-smi initializes each driver first
_UNIT = 2**20


def peak() -> int | None:
    """The most that TensorFlow has used on any GPU since `reset`; None without a GPU."""
    peaks = [tf.config.experimental.get_memory_info(name)["peak"] for name in _names()]
    return max(peaks, default=None)


def reset() -> None:
    """Starts a new measurement of `peak`."""
    for name in _names():
        tf.config.experimental.reset_memory_stats(name)


def total() -> int | None:
    """The size of the smallest GPU that this process uses; None without a GPU, or if not known.

    nvidia-smi lists all GPUs of the machine, also those that CUDA_VISIBLE_DEVICES hides, and in an
    order of its own: if there are others, the size is known only if all have the same.
    """
    if not devices.gpus():
        return None
    try:
        answer = subprocess.run(
            _QUERY, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        ).stdout
        sizes = [int(line) * _UNIT for line in answer.splitlines()]
        all_used = len(sizes) == len(devices.gpus())
        return min(sizes) if all_used or len(set(sizes)) == 1 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _names() -> list[str]:
    return [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
