"""What workers ask each other for between two steps."""

import dataclasses
import types

import numpy as np
import pytest

from cnnrnn import errors
from cnnrnn.system import stop_signals
from cnnrnn.training import requests


@dataclasses.dataclass
class Workers:
    count: int
    is_chief: bool


def of(count, is_chief, *, save=False, out_of_time=False):
    return requests.Requests(
        Workers(count, is_chief),
        types.SimpleNamespace(is_due=save),
        types.SimpleNamespace(is_out_of_time=out_of_time),
    )


def test_one_process_acts_at_once():
    alone = of(1, True, save=True)
    assert alone.to_sum() == ()
    assert alone.save and not alone.out_of_time
    alone.check_stop()


def test_one_process_stops_at_once(monkeypatch):
    monkeypatch.setattr(stop_signals, "requested", lambda: True)
    with pytest.raises(errors.Stopped):
        of(1, True).check_stop()


def test_workers_act_on_the_sums_only(monkeypatch):
    monkeypatch.setattr(stop_signals, "requested", lambda: True)
    chief = of(2, True, save=True, out_of_time=True)
    (own,) = chief.to_sum()
    np.testing.assert_array_equal(own, [1, 1, 1])
    chief.check_stop()
    assert not chief.save and not chief.out_of_time
    chief.receive(np.array([0, 1, 0], np.float32))
    assert chief.save and not chief.out_of_time
    chief.check_stop()
    chief.receive(np.array([1, 0, 1], np.float32))
    assert chief.out_of_time and not chief.save
    with pytest.raises(errors.Stopped):
        chief.check_stop()


def test_a_due_checkpoint_is_saved_once():
    """Two steps are launched before the chief sees that the first one's results ask for it."""
    worker = of(2, False)
    worker.receive(np.array([0, 1, 1], np.float32))
    worker.saved()
    assert not worker.save and worker.out_of_time


def test_only_the_chief_has_a_clock():
    (own,) = of(2, False, save=True, out_of_time=True).to_sum()
    np.testing.assert_array_equal(own, [0, 0, 0])
