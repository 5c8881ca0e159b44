"""The devices of this machine, and the software that drives them."""

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn.gpu_check import measurement
from cnnrnn.runs import manifest
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import processor


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Describes them.

    Passes if there is a GPU, or if --logical_cpus asks for replicas on the CPU. Figures: "gpus",
    their number, and what the manifest of a run says of the machine.
    """
    gpus, logical_cpus = devices_lib.gpus(), config.run.logical_cpus
    names = sorted({_name(gpu) for gpu in gpus})
    figures = {"gpus": len(gpus), **manifest.of_machine()}
    if gpus:
        text = f"{devices_lib.describe()}: {', '.join(names)}"
    elif logical_cpus > 1:
        text = f"no GPU; {devices_lib.describe(logical_cpus)}: {processor.describe()}"
    else:
        text = "TensorFlow sees no GPU on this machine, so there is nothing to check."
    return measurement.Measurement(bool(gpus) or logical_cpus > 1, text, figures)


def _name(gpu: tf.config.PhysicalDevice) -> str:
    details = tf.config.experimental.get_device_details(gpu)
    capability = ".".join(map(str, details.get("compute_capability", ())))
    return f"{details.get('device_name', 'unknown')} (compute capability {capability})"
