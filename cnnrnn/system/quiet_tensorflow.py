"""Import of TensorFlow without its start-up messages."""

import importlib
import os
import pathlib
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow and shows its start-up messages only if the import fails.

    Without a GPU they look like errors. Some ignore TF_CPP_MIN_LOG_LEVEL, so standard error is
    redirected during the import. If the user sets that variable, nothing is hidden.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    # Without an NVIDIA driver an error is expected, too: CUDA cannot be initialized.
    has_driver = pathlib.Path("/proc/driver/nvidia").exists()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2" if has_driver else "3"
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as redirected:
        os.dup2(redirected.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            redirected.seek(0)
            os.write(original, redirected.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
