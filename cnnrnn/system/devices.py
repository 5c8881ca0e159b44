"""The machine: which devices train, as how many replicas, in which precision."""

import functools
import pathlib

import tensorflow as tf
from absl import logging

from cnnrnn import errors


@functools.cache  # two strategies in one process collide in their collectives
def strategy(logical_cpus: int = 1) -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs, else over one CPU or `logical_cpus` parts of it.

    The first call must come before TensorFlow touches a device; later ones return the same object.

    Raises:
        UsageError: --logical_cpus is given although there is a GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and logical_cpus > 1:
        raise errors.UsageError(
            f"--logical_cpus={logical_cpus} is for machines without a GPU; this one has "
            f"{len(gpus)}. Leave it out, or hide the GPUs with CUDA_VISIBLE_DEVICES=''."
        )
    if gpus:
        for gpu in gpus:
            # Otherwise TensorFlow takes all memory of each GPU at once, other programs' too.
            tf.config.experimental.set_memory_growth(gpu, True)
        return tf.distribute.MirroredStrategy()
    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * logical_cpus
        )
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(logical_cpus)])


def precision(
    requested: str,
    *,
    cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo"),
) -> str:
    """Settles --precision: 'auto' is bfloat16 where it is native, else float32.

    Args:
        requested: one of the flag's values.
        cpuinfo: where Linux lists what the processor can do; elsewhere bfloat16 is not assumed.

    Returns:
        "float32", "bfloat16" or "float16".
    """
    native, why = _native_bfloat16(cpuinfo)
    chosen = requested
    if requested == "auto":
        chosen = "bfloat16" if native else "float32"
    elif requested != "float32" and not native:
        why += ": expect it to be slow"
    logging.info(f"precision: {chosen} ({why})")
    return chosen


def _native_bfloat16(cpuinfo: pathlib.Path) -> tuple[bool, str]:
    """Whether the devices that train multiply bfloat16 natively, and why so."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        oldest = min(detail.get("compute_capability", (0, 0)) for detail in details)
        native = oldest >= (8, 0)
        capability = ".".join(map(str, oldest))
        return native, f"compute capability {capability}, bfloat16 is native from 8.0 on"
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    if found:
        return True, f"this processor has {found[0]}"
    return False, "this processor has no bfloat16 products of its own"


def describe(logical_cpus: int = 1) -> str:
    """What `strategy` trains on: '2 GPUs', 'the CPU', '2 parts of the CPU'."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''}"
    return "the CPU" if logical_cpus == 1 else f"{logical_cpus} parts of the CPU"


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises UsageError unless the replicas can share a batch evenly."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise errors.UsageError(
            f"--batch_size={batch_size} cannot be shared evenly by {replicas} replicas: give a "
            f"multiple of {replicas}."
        )
