"""A trace of some training steps."""

import pytest

from cnnrnn import config, errors, phases
from cnnrnn.commands import train
from cnnrnn.training import profiler


@pytest.mark.parametrize("value", ["10", "0,5", "5,4", "a,b", "1,2,3", "-1,2"])
def test_steps_that_are_not_valid(value):
    with pytest.raises(errors.UsageError, match="--profile_steps=.* is not valid"):
        config.Config.of(profile_steps=value)


def steps_recorded(folder, steps, count, monkeypatch):
    """The steps between start and stop of the trace."""
    recording, recorded = [], []
    monkeypatch.setattr(
        profiler.tf.profiler.experimental, "start", lambda path: recording.append(path)
    )
    monkeypatch.setattr(profiler.tf.profiler.experimental, "stop", recording.pop)
    trace = profiler.Profiler(steps, folder)
    for number in range(1, count + 1):
        trace.before_step()
        recorded += [number] * bool(recording)
    trace.stop()
    trace.stop()
    assert not recording
    return recorded


def test_the_steps_asked_for_are_recorded(tmp_path, monkeypatch, capsys):
    assert steps_recorded(tmp_path, "2,4", 6, monkeypatch) == [2, 3, 4]
    assert "profile: steps 2 to 4 are in" in capsys.readouterr().out


def test_a_phase_that_is_shorter_ends_the_trace(tmp_path, monkeypatch, capsys):
    assert steps_recorded(tmp_path, "2,9", 3, monkeypatch) == [2, 3]
    assert "profile: steps 2 to 3 are in" in capsys.readouterr().out


def test_steps_after_the_end_are_not_recorded_and_that_is_noted(tmp_path, monkeypatch, capsys):
    assert steps_recorded(tmp_path, "4,9", 3, monkeypatch) == []
    assert "--profile_steps=4,9: only 3 steps" in capsys.readouterr().out


def test_nothing_is_recorded_by_default(tmp_path, monkeypatch, capsys):
    assert steps_recorded(tmp_path, "", 3, monkeypatch) == []
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("instant_training")
def test_training_records_the_steps_asked_for(small_config, small_network, monkeypatch, capsys):
    for name in ("start", "stop"):
        monkeypatch.setattr(profiler.tf.profiler.experimental, name, lambda *_: None)
    train.train((phases.PHASE1,), small_config.replace(profile_steps="2,3"))
    assert "profile: steps 2 to 3 are in" in capsys.readouterr().out


def test_a_real_trace_is_a_file_of_the_profile_tab(tmp_path):
    import tensorflow as tf

    trace = profiler.Profiler("1,1", tmp_path)
    trace.before_step()
    tf.constant(1) + 1
    trace.before_step()
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
