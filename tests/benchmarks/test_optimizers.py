"""The benchmark of the optimizers, with the small network."""

import pytest

from benchmarks import optimizers
from tests import small_network


@pytest.mark.parametrize(
    "phase, name",
    [
        optimizers.CASES[0],
        *[pytest.param(*case, marks=pytest.mark.slow) for case in optimizers.CASES[1:]],
    ],
)
def test_both_updates_are_measured(phase, name):
    network = small_network.small_build(3)
    cells = optimizers.row(network, phase, name, 2).strip("|").split("|")
    assert len(cells) == optimizers.HEADER.splitlines()[0].count("|") - 1
    assert cells[1].strip() == name
    assert all(float(cell) > 0 for cell in cells[2:])
