"""The devices of this machine, and the software that drives them."""

from cnnrnn import config as config_lib
from cnnrnn.gpu_check import measurement
from cnnrnn.runs import manifest
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import processor


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Describes them.

    Passes if there is a GPU, or if --logical_cpus asks for replicas on the CPU. Figures: "devices",
    their number, and what the manifest of a run says of the machine.
    """
    logical_cpus = config.run.logical_cpus
    machine = manifest.of_machine()
    gpus = machine.get("gpus", {})
    count = len(devices_lib.gpus())
    if count:
        devices_lib.strategy(logical_cpus)  # refuses several logical CPUs
        kinds = zip(gpus["names"], gpus["compute_capability"], strict=True)
        text = f"{devices_lib.describe()}: " + ", ".join(
            f"{name}, compute capability {capability}" for name, capability in sorted(set(kinds))
        )
        text += f"; driver {gpus['driver']}"
    elif logical_cpus > 1:
        text = f"no GPU; {devices_lib.describe(logical_cpus)}: {processor.describe()}"
    else:
        text = "TensorFlow sees no GPU on this machine, so there is nothing to check."
    figures = {"devices": count or logical_cpus, **machine}
    return measurement.Measurement(bool(count) or logical_cpus > 1, text, figures)
