"""Batches of a phase: where in the order of the images they begin."""

import json
import signal

import pytest

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import reproduce, train
from cnnrnn.datasets import input_pipeline
from cnnrnn.training import initial_weights, steps

BOTH = (phases.PHASE1, phases.PHASE2)


@pytest.fixture
def settings(small_config, small_network):
    """Epochs of 8 samples in phase 1 and of 4 in phase 2."""
    return small_config.replace(epochs=(1, 1), batch_size=(4, 2), samples_per_epoch=(8, 4))


@pytest.fixture
def starts(monkeypatch):
    """The positions at which pipelines begin."""
    found, training = [], input_pipeline.training

    def recorded(*arguments, start, **keywords):
        found.append(start)
        return training(*arguments, start=start, **keywords)

    monkeypatch.setattr(input_pipeline, "training", recorded)
    return found


def begin(phase, config, monkeypatch):
    """Ends before the first step."""

    def stopped(*_):
        raise errors.Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(errors.Stopped):
        patch.setattr(steps, "make_train_step", stopped)
        train.train((phase,), config)


@pytest.mark.thorough
def test_a_phase_continues_in_the_order_of_the_images(settings, starts, monkeypatch):
    """Phase 2 after phase 1, a run that starts from another one, and a phase that resumes."""
    train.train(BOTH, settings)
    assert starts == [0, 8]
    other = settings.replace(run="other", init_from=str(settings.run_dir))
    begin(phases.PHASE1, other, monkeypatch)
    more = settings.replace(epochs=(1, 2))
    begin(phases.PHASE2, more, monkeypatch)
    assert starts[2:] == [12, 12]
    begin(phases.PHASE1, other.replace(run="another"), monkeypatch)  # after the epochs that follow
    assert starts[4:] == [16]


@pytest.mark.thorough
def test_a_run_of_an_earlier_version_keeps_its_order(settings, starts, monkeypatch):
    """Its phase 2 began at the start of the order."""
    with monkeypatch.context() as patch:
        patch.setattr(initial_weights, "first_sample", lambda _: 0)
        train.train(BOTH, settings)
    manifest = settings.run_dir / "manifest.json"
    recorded = json.loads(manifest.read_text())
    del recorded["phase2"]["first_sample"]
    manifest.write_text(json.dumps(recorded))
    with pytest.raises(errors.UsageError, match="phase2 .* another position in the order of the"):
        reproduce.run([str(settings.run_dir)], config_lib.Config())
