"""Outputs of a call are read after the next call is launched."""

import numpy as np
import tensorflow as tf

from cnnrnn.system import pipelined


class Output:
    """A tensor's stand-in that records when it is read."""

    def __init__(self, value, events):
        self._value, self._events = value, events

    def numpy(self):
        self._events.append(f"read {self._value}")
        return np.array(self._value)


def test_outputs_are_read_after_the_next_call():
    events = []

    def function(batch):
        events.append(f"launch {batch}")
        return {"a": Output(batch, events)}

    calls = pipelined.Pipelined(function)
    assert calls.pending == 0 and calls.drain() is None
    returned = [calls.call(1), calls.call(2)]
    assert calls.pending == 1
    returned += [calls.drain(), calls.drain(), calls.call(3)]
    assert calls.pending == 1
    assert returned == [None, {"a": 1}, {"a": 2}, None, None]
    assert events == ["launch 1", "launch 2", "read 1", "read 2", "launch 3"]


def test_a_device_that_has_to_be_waited_for_was_not_idle(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pipelined.time, "monotonic", lambda: now[0])

    class Slow(Output):
        def numpy(self):
            now[0] += self._value  # seconds
            return super().numpy()

    calls = pipelined.Pipelined(lambda batch: Slow(batch, []))
    idle = []
    for seconds in (0.0, 2.0, 0.0, 0.0):
        calls.call(seconds)
        idle.append(calls.was_idle)
    assert idle == [True, True, False, True]


def test_outputs_of_a_compiled_function_keep_their_structure_and_bits():
    function = tf.function(lambda x: (x / 3, {"index": tf.argmax(x)}))
    calls = pipelined.Pipelined(function)
    x = tf.constant([1.0, 5.0, 2.0])
    assert calls.call(x) is None
    third, indices = calls.drain()
    np.testing.assert_array_equal(third, function(x)[0].numpy())
    assert indices["index"] == 1
