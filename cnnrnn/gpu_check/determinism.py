"""A digest of everything that a few steps of phase 2 change, in each precision that is used."""

import hashlib

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.gpu_check import measurement
from cnnrnn.gpu_check import session as session_lib

_STEPS = 3


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Trains from the same initial weights in each process.

    Returns:
        Figures: a SHA-256 by precision, of float32 and of the one that --precision names.
    """
    digests = {}
    for requested in ("float32", config.training.precision):
        session = session_lib.Session(phases.PHASE2, config.replace(precision=requested))
        if session.config.training.precision not in digests:
            session.losses(_STEPS)
            content = b"".join(variable.numpy().tobytes() for variable in session.variables)
            digest = hashlib.sha256(content).hexdigest()
            digests[session.config.training.precision] = digest
    return measurement.Measurement(True, "", digests)
