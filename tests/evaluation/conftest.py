"""An evaluated run. The fixture imports TensorFlow, which few tests here need."""

import pathlib

import pytest


@pytest.fixture
def evaluated_run(small_network, small_config, one_replica) -> pathlib.Path:
    """The folder of a run of phase 1 that was evaluated."""
    from cnnrnn.commands import evaluate, train

    train.phase1((), small_config)
    evaluate.run((), small_config)
    return small_config.run_dir
