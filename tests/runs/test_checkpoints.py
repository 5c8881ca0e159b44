"""Checkpoints: damage of every kind, another network, a full disk."""

import errno
import itertools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors, phases
from cnnrnn.runs import checkpoints
from cnnrnn.system import checksummed, sealed_json
from tests import small_network


class Phase:
    """A small network, its optimizer and position, with a way to save and restore them."""

    def __init__(self, directory, classes=("a", "b", "c"), build=small_network.small_build, **kw):
        self.model = build(len(classes)).model
        self.optimizer = keras.optimizers.RMSprop()
        self.optimizer.build(self.model.trainable_variables)
        self.position = checkpoints.Position(phases.PHASE1)
        self.told = []
        self.saver = checkpoints.Checkpoints(
            directory,
            self.model,
            self.optimizer,
            self.position,
            class_names=classes,
            log=self.told.append,
            **{"minutes": 10.0, "on_failure": "stop"} | kw,
        )

    def save_epochs(self, count):
        for epoch in range(count):
            self.position.epoch.assign(epoch + 1)
            self.saver.save()
        return self


def only_file(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def truncate(folder):
    path = only_file(folder, "*.data-*")
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(folder):
    path = only_file(folder, "*.data-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete_half(folder):
    only_file(folder, "*.index").unlink()


def empty(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")


def empty_folder(folder):
    for path in folder.iterdir():
        path.unlink()


DAMAGES = (truncate, flip_a_bit, delete_half, empty, empty_folder)


def test_all_state_comes_back(tmp_path):
    before = Phase(tmp_path)
    for variable in (*before.model.weights, *before.optimizer.variables):
        variable.assign(tf.cast(tf.random.uniform(variable.shape, 0, 9), variable.dtype))
    before.position.totals.assign([1, 2, 3, 4])
    before.save_epochs(1)
    after = Phase(tmp_path)
    assert after.saver.restore() == tmp_path / "00000001"
    pairs = [(p.model.weights, p.optimizer.variables) for p in (before, after)]
    for a, b in zip(*map(itertools.chain.from_iterable, pairs), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(after.position.totals, [1, 2, 3, 4])


def test_the_last_two_are_kept_and_none_is_no_fault(tmp_path):
    assert Phase(tmp_path).saver.restore() is None
    Phase(tmp_path).save_epochs(4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "00000004"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, damage):
    Phase(tmp_path).save_epochs(2)
    damage(tmp_path / "00000002")
    after = Phase(tmp_path)
    assert after.saver.restore() == tmp_path / "00000001"
    assert after.position.epoch.numpy() == 1
    assert len(after.told) == 2 and str(tmp_path / "00000002") in after.told[0]
    after.save_epochs(2)
    assert Phase(tmp_path).saver.restore() == tmp_path / "00000003"


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_none_is_whole_the_run_stops(tmp_path, damage):
    Phase(tmp_path).save_epochs(2)
    for folder in list(tmp_path.iterdir()):
        damage(folder)
    with pytest.raises(errors.RunError, match="none of the checkpoints .* is whole"):
        Phase(tmp_path).saver.restore()


def test_layers_that_changed_places_are_noticed(tmp_path):
    def build(names):
        layers = [keras.layers.Dense(4, name=name) for name in names]
        model = keras.Sequential([keras.Input((4,)), *layers])
        return lambda classes: types.SimpleNamespace(model=model)

    Phase(tmp_path, build=build(("first", "second"))).save_epochs(1)
    with pytest.raises(errors.UsageError, match="of another network: .*first.*second"):
        Phase(tmp_path, build=build(("second", "first"))).saver.restore()


def test_classes_that_changed_places_are_noticed(tmp_path):
    Phase(tmp_path, classes=("cat", "dog")).save_epochs(1)
    with pytest.raises(errors.UsageError, match="class list: it has cat where there is dog"):
        Phase(tmp_path, classes=("dog", "cat")).saver.restore()


def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_one_before_stays(tmp_path, monkeypatch):
    phase = Phase(tmp_path).save_epochs(1)
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full)
        with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
            phase.saver.save()
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert Phase(tmp_path).saver.restore() == tmp_path / "00000001"


def test_a_run_that_may_goes_on_without(tmp_path, monkeypatch):
    phase = Phase(tmp_path, on_failure="continue").save_epochs(1)
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full)
        phase.saver.save()
    assert "No space left" in phase.told[0] and "Going on" in phase.told[0]
    phase.saver.save()
    assert Phase(tmp_path).saver.restore() == tmp_path / "00000002"


def test_what_a_killed_process_left_is_cleared(tmp_path):
    Phase(tmp_path).save_epochs(1)
    (tmp_path / ".partial-123-00000002").mkdir()
    (tmp_path / ".partial-123-00000002" / "variables.index").write_bytes(b"half")
    (tmp_path / ".partial-123-best.json").write_bytes(b"half")
    assert Phase(tmp_path).saver.restore() == tmp_path / "00000001"  # it is not taken for one
    checksummed.clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_a_flipped_figure_in_a_record_is_noticed(tmp_path):
    path = tmp_path / "best.json"
    sealed_json.write(path, {"epoch": 12, "names": ["ü"]})
    assert sealed_json.read(path) == {"epoch": 12, "names": ["ü"]}
    path.write_text(path.read_text().replace("12", "13"))
    with pytest.raises(ValueError, match="has changed"):
        sealed_json.read(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="damaged"):
        sealed_json.read(path)
