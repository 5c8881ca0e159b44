"""Phase 2 trained twice from the same weights: are the results equal to the bit?"""

import numpy as np

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.gpu_check import measurement
from cnnrnn.gpu_check import session as session_lib

_STEPS = 3


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Compares all weights and the optimizer's state after a few steps.

    Passes if they are identical. Figures: "different", the number of variables that differ;
    "largest", the largest difference of a number.
    """
    session = session_lib.Session(phases.PHASE2, config)
    initial = [variable.numpy() for variable in session.variables]
    results = []
    for _ in range(2):
        for variable, value in zip(session.variables, initial, strict=True):
            variable.assign(value)
        session.losses(_STEPS)
        results.append([variable.numpy() for variable in session.variables])
    pairs = list(zip(*results, strict=True))
    different = [pair for pair in pairs if not np.array_equal(*pair)]
    largest = max((float(np.max(np.abs(a - b))) for a, b in different), default=0.0)
    text = "identical to the bit"
    if different:
        text = f"{len(different)} of {len(pairs)} variables differ, by up to {largest:.1e}"
    return measurement.Measurement(
        not different, text, {"different": len(different), "largest": largest}
    )
