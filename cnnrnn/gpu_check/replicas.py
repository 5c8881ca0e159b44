"""Losses of both phases on one device or on all, on the same global batches."""

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.gpu_check import measurement
from cnnrnn.gpu_check import session as session_lib
from cnnrnn.system import devices

_STEPS = 2


def measure(config: config_lib.Config, only_first: bool) -> measurement.Measurement:
    """Trains two steps of each phase.

    Args:
        config: its precision does not apply; its batch sizes must be multiples of the number of all
            devices.
        only_first: use the first device only.

    Returns:
        Figures: "losses" by phase and step; "devices".
    """
    if only_first:
        tf.config.set_visible_devices(devices.gpus()[:1], "GPU")
        config = config.replace(logical_cpus=1)
    # The reduced precision of TF32 would hide differences.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    config = config.replace(precision="float32")
    losses = {}
    for phase in phases.BY_NAME.values():
        session = session_lib.Session(phase, config)
        losses[phase.name] = session.losses(_STEPS)
    count = session.strategy.num_replicas_in_sync
    return measurement.Measurement(True, "", {"losses": losses, "devices": count})
