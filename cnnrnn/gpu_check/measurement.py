"""Measurements in child processes: their results, and how they start. Needs no TensorFlow."""

import dataclasses
import importlib
from typing import Any

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import quiet_tensorflow


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The result of one measurement.

    Attributes:
        passed: whether it is as it should be.
        text: figures for the table, one line.
        figures: for the file, JSON.
    """

    passed: bool
    text: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


def measure(name: str, config: config_lib.Config, *arguments: Any) -> Measurement:
    """Makes a measurement; for child processes, because it imports TensorFlow.

    Args:
        name: a module of this package.
        config: its --deterministic applies to the whole process.
        *arguments: of the module's function `measure`, after `config`.

    Raises:
        MemoryError: TensorFlow could not allocate memory.
        RunError: TensorFlow raised another error.
    """
    quiet_tensorflow.import_tensorflow()
    import tensorflow as tf

    from cnnrnn.system import devices
    from cnnrnn.system import text as text_lib

    devices.configure(deterministic=config.run.deterministic)
    module = importlib.import_module(f"cnnrnn.gpu_check.{name}")
    try:
        return module.measure(config, *arguments)
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(text_lib.first_line(error)) from error
    except tf.errors.OpError as error:
        raise errors.RunError(text_lib.first_line(error)) from error
