"""Devices: --precision=auto, batches that replicas can share."""

import types

import pytest
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.system import devices, processor


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


@pytest.mark.parametrize("capability, chosen", [((9, 0), "bfloat16"), ((7, 5), "float32")])
def test_auto_is_bfloat16_if_all_gpus_have_it(monkeypatch, capability, chosen):
    capabilities = {"a": (9, 0), "b": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(capabilities))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": capabilities[gpu]},
    )
    assert devices.precision("auto") == chosen


def test_there_is_one_strategy_per_process(one_replica):
    assert devices.strategy() is one_replica


def test_logical_cpus_on_a_machine_with_a_gpu_are_refused(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a"])
    with pytest.raises(errors.UsageError, match="--logical_cpus=3 is for machines without a GPU"):
        devices.strategy(3)


def test_a_batch_must_be_a_multiple_of_the_replicas():
    two_replicas = types.SimpleNamespace(num_replicas_in_sync=2)
    devices.check_batch(4, two_replicas)
    with pytest.raises(errors.UsageError, match="--batch_size=5 .* multiple of 2"):
        devices.check_batch(5, two_replicas)
