"""Devices: distribution strategy, precision, their description."""

import functools

import tensorflow as tf
from absl import logging

from cnnrnn import errors
from cnnrnn.system import processor


@functools.cache  # collectives of two strategies in one process collide
def strategy(logical_cpus: int = 1) -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs; without a GPU, over logical CPUs.

    The first call must come before TensorFlow initializes its devices; later calls return the same
    object.

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
            # By default TensorFlow allocates all memory of each GPU at start-up.
            tf.config.experimental.set_memory_growth(gpu, True)
        return tf.distribute.MirroredStrategy()
    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * logical_cpus
        )
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(logical_cpus)])


def precision(requested: str) -> str:
    """Resolves --precision: "auto" is bfloat16 where the hardware supports it, else float32.

    Args:
        requested: a value of the flag.

    Returns:
        "float32", "bfloat16" or "float16".
    """
    native, reason = _native_bfloat16()
    chosen = requested
    if requested == "auto":
        chosen = "bfloat16" if native else "float32"
    elif requested != "float32" and not native:
        reason += ": expect it to be slow"
    logging.info(f"precision: {chosen} ({reason})")
    return chosen


def _native_bfloat16() -> tuple[bool, str]:
    """Whether all GPUs, or else the processor, have bfloat16 instructions, and the reason."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        lowest = min(detail.get("compute_capability", (0, 0)) for detail in details)
        native = lowest >= (8, 0)
        capability = ".".join(map(str, lowest))
        return native, f"compute capability {capability}, bfloat16 is native from 8.0 on"
    available = processor.flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in available:
            return True, f"this processor has {flag}"
    return False, "this processor has no bfloat16 instructions"


def describe(logical_cpus: int = 1) -> str:
    """The devices of `strategy`: "2 GPUs", "the CPU", "2 logical CPUs"."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''}"
    return "the CPU" if logical_cpus == 1 else f"{logical_cpus} logical CPUs"


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises UsageError unless the batch size is a multiple of the number of replicas."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise errors.UsageError(
            f"--batch_size={batch_size} cannot be divided evenly among {replicas} replicas: give a "
            f"multiple of {replicas}."
        )
