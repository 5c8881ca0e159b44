"""A digest of everything that a few steps of phase 2 change, in each precision that is used."""

import hashlib

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.gpu_check import measurement
from cnnrnn.gpu_check import session as session_lib
from cnnrnn.system import console, devices

_STEPS = 3


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Trains from the same initial weights in each process.

    Returns:
        Figures: a SHA-256 by precision, of float32 and of the one that --precision names.
    """
    with console.captured():
        precision = devices.precision(config.training.precision)
    digests = {}
    for used in dict.fromkeys(("float32", precision)):
        session = session_lib.Session(phases.PHASE2, config.replace(precision=used))
        session.losses(_STEPS)
        content = b"".join(variable.numpy().tobytes() for variable in session.variables)
        digests[used] = hashlib.sha256(content).hexdigest()
    return measurement.Measurement(True, "", digests)
