"""Import of TensorFlow: hidden messages, and the warning if it misses a GPU."""

import contextlib
import ctypes
import importlib
import os
import platform

import pytest
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.system import child_process, gpu_libraries, processor, quiet_tensorflow

ERROR = b"E0000 00:00:1795554088.154289    5758 cuda_platform.cc:52] failed call to cuInit\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that sets up a driver and the GPUs that TensorFlow sees."""

    def set_up(*, driver=True, gpus=(), hidden=False, processor="x86_64"):
        def list_physical_devices(kind):
            os.write(2, ERROR)
            return list(gpus)

        monkeypatch.setattr(platform, "machine", lambda: processor)
        (tmp_path / "dev").mkdir()
        if driver:
            (tmp_path / "dev" / "nvidiactl").touch()
        monkeypatch.setenv("CNNRNN_DRIVER_ROOT", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if hidden:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        # Set first, so that it is restored: the function under test sets it, too.
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
        monkeypatch.setattr(tf.config, "list_physical_devices", list_physical_devices)
        monkeypatch.setattr(gpu_libraries, "load", dict)
        monkeypatch.setattr(gpu_libraries, "problem", lambda: ("it is Monday", "Wait"))

    return set_up


def level() -> bytes | None:
    """TF_CPP_MIN_LOG_LEVEL as TensorFlow reads it."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    return getenv(b"TF_CPP_MIN_LOG_LEVEL")


def test_a_gpu_that_tensorflow_misses_is_a_warning_on_standard_error(machine, capfd):
    machine()
    quiet_tensorflow.import_tensorflow()
    out, err = capfd.readouterr()
    assert out == ""  # of predict, it is the result
    assert err.startswith(
        "warning: there is an NVIDIA driver, but TensorFlow sees no GPU: it is Monday. The CPU is "
        "used, which is many times slower. Wait."
    )
    assert len(err.splitlines()) == 1  # not TensorFlow's own
    assert level() == b"2"  # errors of the GPU are shown later


def test_a_tensorflow_without_cuda_is_the_reason(machine, capfd, monkeypatch):
    machine()
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    quiet_tensorflow.import_tensorflow()
    assert "sees no GPU: it is built without CUDA." in capfd.readouterr().err


@pytest.mark.parametrize(
    "setup, uses_gpus",
    [({"driver": False}, True), ({"gpus": ["a GPU"]}, True), ({"hidden": True}, True), ({}, False)]
    + [({"processor": "aarch64"}, True)],
)
def test_otherwise_nothing_is_printed(machine, capfd, setup, uses_gpus):
    machine(**setup)
    quiet_tensorflow.import_tensorflow(uses_gpus)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_hidden_if_the_user_sets_the_level(machine, capfd, monkeypatch):
    machine()
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    quiet_tensorflow.import_tensorflow()
    shown, warning = capfd.readouterr().err.splitlines()
    assert shown == ERROR.decode().strip() and "it is Monday" in warning


def test_child_processes_choose_the_level_themselves(machine):
    machine()
    quiet_tensorflow.import_tensorflow(uses_gpus=False)
    assert level() == b"3"
    assert "TF_CPP_MIN_LOG_LEVEL" not in child_process.environment()


def test_child_processes_inherit_the_level_of_the_user(machine, monkeypatch):
    machine()
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    quiet_tensorflow.import_tensorflow(uses_gpus=False)
    assert child_process.environment()["TF_CPP_MIN_LOG_LEVEL"] == "1"


def test_the_messages_of_a_failed_import_are_shown(machine, capfd, monkeypatch):
    def fail(name):
        os.write(2, b"cannot allocate memory in static TLS block\n")
        raise ImportError(name)

    machine(driver=False)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError):
        quiet_tensorflow.import_tensorflow()
    assert capfd.readouterr().err == "cannot allocate memory in static TLS block\n"


@pytest.mark.parametrize(
    "flags, is_refused", [("fpu sse4_2", True), ("fpu avx", False), ("", False)]
)
def test_a_processor_without_avx_is_one_sentence(machine, monkeypatch, flags, is_refused):
    """TensorFlow aborts on it; "": of other processors than x86."""
    machine()
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags.split()))
    refused = pytest.raises(errors.RunError, match="needs a processor with AVX.*such as 'host'")
    with refused if is_refused else contextlib.nullcontext():
        quiet_tensorflow.import_tensorflow()


def test_libraries_are_loaded_before_tensorflow(machine, monkeypatch):
    machine()
    order = []
    monkeypatch.setattr(gpu_libraries, "load", lambda: order.append("libraries"))
    monkeypatch.setattr(importlib, "import_module", lambda name: [order.append(name), tf][1])
    quiet_tensorflow.import_tensorflow()
    assert order == ["libraries", "tensorflow"]
