"""Two logical CPUs, for tests of several replicas.

Imported at the top of each module that needs them, because logical devices can only be set before
TensorFlow initializes its devices.
"""

import cnnrnn  # noqa: F401  before TensorFlow: it selects the kernels

# isort: split
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
