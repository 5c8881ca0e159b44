"""Import of TensorFlow without its start-up messages, and with a warning if it misses a GPU."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

from absl import logging

from cnnrnn import errors
from cnnrnn.system import console, gpu_libraries, processor


def import_tensorflow(uses_gpus: bool = True) -> None:
    """Imports TensorFlow, and warns if it sees no GPU although there is an NVIDIA driver.

    TensorFlow's start-up messages are shown only if the import fails. Without a GPU they look like
    errors. Some ignore TF_CPP_MIN_LOG_LEVEL, so standard error is redirected. If the user sets that
    variable, nothing is hidden.

    Args:
        uses_gpus: False if the process works on the CPU anyway; there is no warning then.

    Raises:
        RunError: the processor lacks instructions without which TensorFlow ends the process.
    """
    available = processor.flags()
    if available and "avx" not in available:  # none are known of other processors than x86
        raise errors.RunError(
            "TensorFlow needs a processor with AVX, which this one lacks: use another machine, or, "
            "in a virtual machine, choose a CPU model that has it, such as 'host'."
        )
    expects_gpus = uses_gpus and gpu_libraries.has_driver() and not gpu_libraries.hidden()
    gpu_libraries.load()
    with contextlib.ExitStack() as stack:
        if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
            # Without a GPU an error is expected, too: CUDA cannot be initialized. Not in
            # os.environ: `child_process.environment` would hand it on, and children may use GPUs.
            os.putenv("TF_CPP_MIN_LOG_LEVEL", "2" if expects_gpus else "3")
            stack.enter_context(_stderr_shown_on_failure())
        tensorflow = importlib.import_module("tensorflow")
        if not expects_gpus:
            return
        # This initializes the GPUs, which prints the rest of the messages.
        sees_gpus = bool(tensorflow.config.list_physical_devices("GPU"))
    if not sees_gpus:
        reason, fix = gpu_libraries.problem()
        if not tensorflow.test.is_built_with_cuda():
            reason, fix = "it is built without CUDA", "Install the package tensorflow"
        with console.on_stderr():  # the output of some commands is read by programs
            logging.warning(
                f"there is an NVIDIA driver, but TensorFlow sees no GPU: {reason}. The CPU is "
                f"used, which is many times slower. {fix}. CUDA_VISIBLE_DEVICES=-1 turns this "
                "warning off."
            )


@contextlib.contextmanager
def _stderr_shown_on_failure() -> Iterator[None]:
    """Redirects standard error, also of libraries, to a file that is shown if the block raises."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as redirected:
        os.dup2(redirected.fileno(), 2)
        try:
            yield
        except BaseException:
            redirected.seek(0)
            os.write(original, redirected.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
