"""Devices: which are used, --precision=auto, --deterministic, batches that replicas can share."""

import os
import subprocess
import sys
import types

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

from cnnrnn import errors
from cnnrnn.system import devices, processor
from tests import helpers


@pytest.mark.parametrize(
    "flags, requested, chosen, reason",
    [
        ("fpu avx2 avx512_bf16", "auto", "bfloat16", "avx512_bf16"),
        ("fpu amx_bf16 avx2", "auto", "bfloat16", "amx_bf16"),
        ("fpu avx2 avx512f", "auto", "float32", "no bfloat16"),
        ("", "auto", "float32", "no bfloat16"),
        ("fpu avx2", "bfloat16", "bfloat16", "expect it to be slow"),
        ("fpu avx2", "float16", "float16", "expect it to be slow"),
        ("fpu avx512_bf16", "float32", "float32", "avx512_bf16"),
    ],
)
def test_auto_is_bfloat16_if_the_processor_has_it(
    monkeypatch, capsys, flags, requested, chosen, reason
):
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags.split()))
    assert devices.precision(requested) == chosen
    message = capsys.readouterr().out
    assert message.startswith(f"precision: {chosen} (") and reason in message


@pytest.fixture
def gpus(monkeypatch):
    """Makes this process see GPUs of the given compute capabilities, as lists alone."""

    def see(*capabilities):
        names = [f"GPU {number}" for number in range(len(capabilities))]
        of = dict(zip(names, capabilities, strict=True))
        for listing in ("get_visible_devices", "list_physical_devices"):
            monkeypatch.setattr(tf.config, listing, lambda kind: names if kind == "GPU" else [])
        monkeypatch.setattr(
            tf.config.experimental,
            "get_device_details",
            lambda gpu: {"compute_capability": of[gpu]},
        )

    return see


@pytest.mark.parametrize(
    "lowest, requested, chosen, reason",
    [
        ((8, 0), "auto", "bfloat16", "capability 8.0 has bfloat16"),
        ((7, 5), "auto", "float16", "capability 7.5 has float16 and no bfloat16"),
        ((7, 0), "bfloat16", "bfloat16", "expect it to be slow"),
        ((6, 1), "auto", "float32", "no fast types of 16 bits"),
        ((6, 1), "float16", "float16", "expect it to be slow"),
        ((8, 6), "float32", "float32", "float32 products are TF32"),
    ],
)
def test_the_precision_is_that_of_the_oldest_gpu(gpus, capsys, lowest, requested, chosen, reason):
    gpus((9, 0), lowest)
    assert devices.precision(requested) == chosen
    message = capsys.readouterr().out
    assert message.startswith(f"precision: {chosen} (") and reason in message


def test_float16_is_native_wherever_bfloat16_is(gpus, capsys):
    gpus((8, 9))
    devices.precision("float16")
    assert "slow" not in capsys.readouterr().out


def test_the_arithmetic_of_gpus_names_tf32(gpus, monkeypatch):
    assert devices.arithmetic() == {}
    gpus((7, 5))
    assert devices.arithmetic() == {"device": "GPU", "tf32": False}
    gpus((9, 0))
    assert devices.arithmetic() == {"device": "GPU", "tf32": True}
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert devices.arithmetic() == {"device": "GPU", "tf32": False}


VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "TF_CUDNN_USE_AUTOTUNE", "NCCL_ALGO")


@pytest.mark.parametrize(
    "capabilities, arguments, deterministic, values",
    [
        ([(9, 0)], {}, False, [None, None, None]),
        ([(9, 0)], {"deterministic": True}, True, [":4096:2", "0", "Ring"]),
        ([], {"deterministic": True}, False, [None, None, None]),
    ],
)
def test_deterministic_operations(
    gpus, monkeypatch, capabilities, arguments, deterministic, values
):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    gpus(*capabilities)
    try:
        devices.configure(**arguments)
        assert tensorflow_config.is_op_determinism_enabled() == deterministic
    finally:
        tensorflow_config.disable_op_determinism()
    assert [os.environ.get(name) for name in VARIABLES] == values


def test_the_memory_of_gpus_is_allocated_as_it_is_needed():
    """TensorFlow reads it when the first GPU is initialized."""
    code = "import os, cnnrnn; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    variables = os.environ.keys() - {"TF_FORCE_GPU_ALLOW_GROWTH"}
    output = subprocess.check_output(
        [sys.executable, "-c", code],
        cwd=helpers.REPOSITORY,
        env={name: os.environ[name] for name in variables},
        text=True,
    )
    assert output == "true\n"


@pytest.mark.parametrize("uses_gpus, hidden", [(False, [([], "GPU")]), (True, [])])
def test_gpus_are_hidden_from_processes_that_do_not_use_them(monkeypatch, uses_gpus, hidden):
    calls = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *call: calls.append(call))
    devices.configure(uses_gpus=uses_gpus)
    assert calls == hidden


def test_hidden_gpus_are_not_used_and_still_described(gpus, monkeypatch, one_replica):
    gpus((9, 0), (9, 0))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    assert devices.gpus() == [] and devices.arithmetic() == {}
    assert devices.describe() == "2 GPUs"


def test_there_is_one_strategy_per_process(one_replica):
    assert devices.strategy() is one_replica


def test_logical_cpus_on_a_machine_with_a_gpu_are_refused(gpus):
    gpus((8, 0))
    with pytest.raises(errors.UsageError, match="--logical_cpus=3 is for machines without a GPU"):
        devices.strategy(3)


def test_a_batch_must_be_a_multiple_of_the_replicas():
    two_replicas = types.SimpleNamespace(num_replicas_in_sync=2)
    devices.check_batch(4, two_replicas)
    with pytest.raises(errors.UsageError, match="--batch_size=5 .* multiple of 2"):
        devices.check_batch(5, two_replicas)
    devices.check_batch(8, two_replicas, parts=4)
    with pytest.raises(errors.UsageError, match="4 images, cannot be divided into 3 equal parts"):
        devices.check_batch(8, two_replicas, parts=3)


def test_gpus_are_hidden_from_tests_that_are_not_marked():
    """Otherwise the results of tests would depend on the machine."""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
