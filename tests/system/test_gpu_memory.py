"""Memory of GPUs, on a machine without one: stand-ins for the devices and for nvidia-smi."""

import pytest
import tensorflow as tf

from cnnrnn.system import devices, gpu_memory


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi with the given output on PATH, before anything else."""

    def write(script):
        path = tmp_path / "nvidia-smi"
        path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        return tmp_path / "arguments"

    return write


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"])


@pytest.mark.parametrize(
    "used, sizes, total",
    [
        (2, "81559 24576", 24576),
        (1, "24576", 24576),
        (1, "24576 24576", 24576),  # the other one is hidden
        (1, "24576 2048", None),  # one is hidden, and nvidia-smi does not tell which
    ],
)
def test_the_total_is_that_of_the_smallest_gpu_in_use(nvidia_smi, monkeypatch, used, sizes, total):
    monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"] * used)
    arguments = nvidia_smi("; ".join(f"echo {size}" for size in sizes.split()))
    assert gpu_memory.total() == (total * 2**20 if total else None)
    assert "--query-gpu=memory.total" in arguments.read_text()
    assert "nounits" in arguments.read_text()


@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'Failed to initialize NVML'", "true", "echo '[N/A]'"]
)
def test_a_total_that_nvidia_smi_does_not_give_is_unknown(nvidia_smi, a_gpu, script):
    nvidia_smi(script)
    assert gpu_memory.total() is None


def test_without_nvidia_smi_the_total_is_unknown(a_gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory.total() is None


def test_without_a_gpu_there_is_nothing_to_report(nvidia_smi):
    arguments = nvidia_smi("echo 81559")
    assert gpu_memory.total() is None and not arguments.exists()
    assert gpu_memory.peak() is None
    gpu_memory.reset()


def test_the_peak_is_that_of_the_gpu_that_used_most(monkeypatch):
    gpus = [tf.config.LogicalDevice(f"/device:GPU:{i}", "GPU") for i in range(2)]
    peaks = {"/device:GPU:0": 3, "/device:GPU:1": 5}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        tf.config.experimental, "get_memory_info", lambda name: {"current": 1, "peak": peaks[name]}
    )
    monkeypatch.setattr(
        tf.config.experimental, "reset_memory_stats", lambda name: peaks.update({name: 1})
    )
    assert gpu_memory.peak() == 5
    gpu_memory.reset()
    assert gpu_memory.peak() == 1


def test_tensorflow_accepts_the_names_of_logical_devices(monkeypatch):
    """Those of CPUs have the same form."""
    cpus = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: cpus)
    gpu_memory.reset()
    assert gpu_memory.peak() >= 0
