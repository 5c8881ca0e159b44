"""An evaluated run. The fixture imports TensorFlow, which few tests here need."""

import pathlib

import pytest


@pytest.fixture
def evaluated_run(small_network, evaluated) -> pathlib.Path:
    """The folder of a run of phase 1 that was evaluated."""
    return evaluated.run_dir
