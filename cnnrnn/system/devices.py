"""Devices: which this process uses, distribution strategy, precision, their description."""

import contextlib
import functools
import os

import tensorflow as tf
from absl import logging

from cnnrnn import errors
from cnnrnn.system import processor

# Choices that libraries make by timing, or by the order in which threads finish. They read these
# variables at their first use.
_DETERMINISTIC = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:2",  # of cuBLAS, also in cuDNN's LSTM
    "TF_CUDNN_USE_AUTOTUNE": "0",
    "NCCL_ALGO": "Ring",
}


def configure(*, uses_gpus: bool = True, deterministic: bool = False) -> None:
    """Sets up the devices of this process; called once, before TensorFlow's first operation.

    Args:
        uses_gpus: False hides the GPUs, for work on the CPU and for processes whose child processes
            need the GPUs' memory.
        deterministic: see --deterministic. On a CPU there is nothing to do: its operations are
            deterministic, and TensorFlow's setting would only choose slower ones.
    """
    if not uses_gpus:
        tf.config.set_visible_devices([], "GPU")
    if deterministic and gpus():
        os.environ.update(_DETERMINISTIC)
        tf.config.experimental.enable_op_determinism()


def gpus() -> list[tf.config.PhysicalDevice]:
    """The GPUs that this process uses; none if `configure` has hidden them."""
    return tf.config.get_visible_devices("GPU")


def on_cpu() -> contextlib.AbstractContextManager:
    """A block whose eager operations run on the CPU, for images and indices before the network.

    Their kernels exist on the CPU only, and small operations gain nothing from a GPU. In a pipeline
    they are on the CPU anyway. What is traced in the block keeps no device.
    """
    return tf.device("/CPU:0")


@functools.cache  # collectives of two strategies in one process collide
def strategy(logical_cpus: int = 1) -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs; without a GPU, over logical CPUs.

    The first call must come before TensorFlow initializes its devices; later calls return the same
    object.

    Raises:
        UsageError: --logical_cpus is given although there is a GPU.
    """
    if gpus() and logical_cpus > 1:
        raise errors.UsageError(
            f"--logical_cpus={logical_cpus} is for machines without a GPU; this one has "
            f"{len(gpus())}. Leave it out, or hide the GPUs with CUDA_VISIBLE_DEVICES=''."
        )
    if gpus():
        return tf.distribute.MirroredStrategy()
    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * logical_cpus
        )
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(logical_cpus)])


def precision(requested: str) -> str:
    """Resolves --precision: "auto" is the type of 16 bits that the hardware multiplies fastest.

    On GPUs that is bfloat16 from compute capability 8.0 on and float16 on 7.x, whose tensor cores
    have no bfloat16; on a CPU it is bfloat16 if the processor has instructions for it. Without
    either it is float32.

    Args:
        requested: a value of the flag.

    Returns:
        "float32", "bfloat16" or "float16".
    """
    native, reason = _native_of_gpus() if gpus() else _native_of_processor()
    chosen = native if requested == "auto" else requested
    # Tensor cores of 8.0 and later have both types of 16 bits.
    is_native = chosen in ("float32", native) or (bool(gpus()) and native == "bfloat16")
    if not is_native:
        reason = f"expect it to be slow; {native} is native here: {reason}"
    elif chosen == "float32" and arithmetic().get("tf32"):
        reason += ", and float32 products are TF32, rounded to 10 bits: NVIDIA_TF32_OVERRIDE=0 "
        reason += "turns that off"
    logging.info(f"precision: {chosen} ({reason})")
    return chosen


def arithmetic() -> dict[str, bool | str]:
    """What besides the precision decides how the devices round, as JSON; {} on a CPU.

    "device": "GPU", and "tf32": whether float32 products are computed in TF32.
    """
    if not gpus():
        return {}
    return {"device": "GPU", "tf32": allows_tf32() and _lowest_compute_capability() >= (8, 0)}


def allows_tf32() -> bool:
    """Whether float32 products may be computed in TF32; compute capability 8.0 and later can."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    return enabled and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def _native_of_gpus() -> tuple[str, str]:
    """The fastest type of all GPUs, and the reason."""
    lowest = _lowest_compute_capability()
    reason = f"compute capability {'.'.join(map(str, lowest))}"
    if lowest >= (8, 0):
        return "bfloat16", f"{reason} has bfloat16"
    if lowest >= (7, 0):
        return "float16", f"{reason} has float16 and no bfloat16"
    return "float32", f"{reason} has no fast types of 16 bits"


def _lowest_compute_capability() -> tuple[int, int]:
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus()]
    return min(detail.get("compute_capability", (0, 0)) for detail in details)


def _native_of_processor() -> tuple[str, str]:
    """The fastest type of the processor, and the reason."""
    available = processor.flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in available:
            return "bfloat16", f"this processor has {flag}"
    return "float32", "this processor has no bfloat16 instructions"


def count(logical_cpus: int = 1) -> int:
    """How many devices training uses here; GPUs that are hidden from this process count."""
    return len(tf.config.list_physical_devices("GPU")) or logical_cpus


def describe(logical_cpus: int = 1, workers: int = 1) -> str:
    """The devices that training uses: "2 GPUs", "the CPU", "2 workers, each on the CPU".

    GPUs that are hidden from this process count: its child processes see them. Of several workers,
    the devices of this one stand for those of each.
    """
    gpu_count = count(logical_cpus=0)
    own = "the CPU" if logical_cpus == 1 else f"{logical_cpus} logical CPUs"
    if gpu_count:
        own = f"{gpu_count} GPU{'s' if gpu_count > 1 else ''}"
    return own if workers == 1 else f"{workers} workers, each on {own}"


def check_batch(batch_size: int, strategy: tf.distribute.Strategy, parts: int = 1) -> None:
    """Raises UsageError unless the batch is divided evenly.

    Args:
        batch_size: over all replicas.
        strategy: its replicas get equal shares.
        parts: --accumulation_steps, into which each share is divided.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise errors.UsageError(
            f"--batch_size={batch_size} cannot be divided evenly among {replicas} replicas: give a "
            f"multiple of {replicas}."
        )
    share = batch_size // replicas
    if share % parts:
        whose = (
            f"the share of each of {replicas} replicas, {share} images," if replicas > 1 else "it"
        )
        raise errors.UsageError(
            f"--batch_size={batch_size} and --accumulation_steps={parts} do not go together: "
            f"{whose} cannot be divided into {parts} equal parts. Give a --batch_size that is a "
            f"multiple of {replicas * parts}, or another --accumulation_steps."
        )
