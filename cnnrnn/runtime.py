"""The machine: which devices train, and as how many replicas."""

import tensorflow as tf

from cnnrnn import errors


def strategy(logical_cpus: int = 1) -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs, else over one CPU or `logical_cpus` parts of it.

    To be called before TensorFlow has touched a device, and once a process: two strategies
    collide in their collectives.

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


def describe(strategy: tf.distribute.Strategy) -> str:
    """'2 GPUs', '1 CPU', '2 parts of the CPU'."""
    replicas = strategy.num_replicas_in_sync
    if tf.config.list_physical_devices("GPU"):
        return f"{replicas} GPU{'s' if replicas > 1 else ''}"
    return "the CPU" if replicas == 1 else f"{replicas} parts of the CPU"


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises UsageError unless the replicas can share a batch evenly."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise errors.UsageError(
            f"--batch_size={batch_size} cannot be shared evenly by {replicas} replicas: give a "
            f"multiple of {replicas}."
        )
