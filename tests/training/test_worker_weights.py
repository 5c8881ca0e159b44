"""Comparison of weights between workers; test_several_workers.py shares them between processes."""

import types

import numpy as np
import pytest

from cnnrnn import errors, phases
from cnnrnn.runs import checkpoints
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


def test_all_workers_continue_at_the_same_sample():
    nothing = types.SimpleNamespace(weights=(), variables=())
    state = types.SimpleNamespace(
        network=types.SimpleNamespace(model=nothing), optimizer=nothing, trackables=dict
    )
    position = checkpoints.Position(phases.PHASE2)

    def broadcast(variables):
        variables[-1].assign(8)  # the chief's value

    worker_weights.share(types.SimpleNamespace(broadcast=broadcast), state, position)
    assert position.first_sample == 8
