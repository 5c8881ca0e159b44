"""Comparison of weights between workers; test_several_workers.py shares them between processes."""

import types

import numpy as np
import pytest

from cnnrnn import errors
from cnnrnn.training import worker_weights


@pytest.mark.parametrize("others, fails", [({}, False), ({"weights": "1"}, True)])
def test_other_weights_on_a_worker_are_an_error(others, fails):
    network = types.SimpleNamespace(model=types.SimpleNamespace(weights=[np.zeros(3)]))
    workers = types.SimpleNamespace(count=2, differing=lambda values: others)
    if not fails:
        worker_weights.check(workers, network)
        return
    with pytest.raises(errors.RunError, match="worker 1 has other weights than worker 0"):
        worker_weights.check(workers, network)
