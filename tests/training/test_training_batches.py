"""Batches of a phase: where in the order of the images they begin."""

import signal

import pytest

from cnnrnn import errors, phases
from cnnrnn.commands import train
from cnnrnn.datasets import input_pipeline
from cnnrnn.training import steps


def stopped(*_):
    raise errors.Stopped(signal.SIGTERM)


def test_a_phase_continues_in_the_order_of_the_images(small_config, small_network, monkeypatch):
    """Phase 2 after phase 1, a run that starts from another one, and a phase that resumes."""
    starts, training = [], input_pipeline.training

    def recorded(*arguments, start, **keywords):
        starts.append(start)
        return training(*arguments, start=start, **keywords)

    monkeypatch.setattr(input_pipeline, "training", recorded)
    config = small_config.replace(epochs=(1, 1), batch_size=(4, 2), samples_per_epoch=(8, 4))
    train.train((phases.PHASE1, phases.PHASE2), config)
    assert starts == [0, 8]
    with monkeypatch.context() as patch, pytest.raises(errors.Stopped):
        patch.setattr(steps, "make_train_step", stopped)
        other = config.replace(run="other", init_from=str(config.run_dir))
        train.train((phases.PHASE1,), other)
    with monkeypatch.context() as patch, pytest.raises(errors.Stopped):
        patch.setattr(steps, "make_train_step", stopped)
        train.train((phases.PHASE2,), config.replace(epochs=(1, 2)))
    assert starts == [0, 8, 12, 12]
