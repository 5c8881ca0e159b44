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
from cnnrnn.system import checksummed
from tests import small_network


class Saved:
    """A small network with its optimizer, position and checkpoints."""

    def __init__(
        self,
        directory,
        classes=("a", "b", "c"),
        build=small_network.small_build,
        on_failure="stop",
    ):
        self.model = build(len(classes)).model
        self.optimizer = keras.optimizers.RMSprop()
        self.optimizer.build(self.model.trainable_variables)
        self.position = checkpoints.Position(phases.PHASE1)
        self.checkpoints = checkpoints.Checkpoints(
            directory,
            checkpoints.State(self.model, self.optimizer, self.position),
            classes,
            checkpoints.SavePolicy(minutes=10.0, on_failure=on_failure),
        )

    def save_epochs(self, count):
        for _ in range(count):
            self.position.end_epoch()
            self.checkpoints.save()
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
    before = Saved(tmp_path)
    for variable in (*before.model.weights, *before.optimizer.variables):
        variable.assign(tf.cast(tf.random.uniform(variable.shape, 0, 9), variable.dtype))
    before.position.end_epoch()
    before.position.advance(np.array([1, 2, 3, 4]))
    before.checkpoints.save()
    after = Saved(tmp_path)
    assert after.checkpoints.restore() == tmp_path / "00000001"
    pairs = [(p.model.weights, p.optimizer.variables) for p in (before, after)]
    for a, b in zip(*map(itertools.chain.from_iterable, pairs), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(after.position.totals, [1, 2, 3, 4])


def test_the_last_two_are_kept_and_none_is_no_fault(tmp_path):
    assert Saved(tmp_path).checkpoints.restore() is None
    Saved(tmp_path).save_epochs(4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "00000004"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, damage, capsys):
    Saved(tmp_path).save_epochs(2)
    damage(tmp_path / "00000002")
    after = Saved(tmp_path)
    assert after.checkpoints.restore() == tmp_path / "00000001"
    assert after.position.epoch == 1
    warning, _ = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "00000002") in warning
    after.save_epochs(2)
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000003"


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_none_is_whole_the_run_stops(tmp_path, damage):
    Saved(tmp_path).save_epochs(2)
    for folder in list(tmp_path.iterdir()):
        damage(folder)
    with pytest.raises(errors.RunError, match="none of the checkpoints .* is whole"):
        Saved(tmp_path).checkpoints.restore()


def test_layers_that_changed_places_are_noticed(tmp_path):
    def build(names):
        layers = [keras.layers.Dense(4, name=name) for name in names]
        model = keras.Sequential([keras.Input((4,)), *layers])
        return lambda classes: types.SimpleNamespace(model=model)

    Saved(tmp_path, build=build(("first", "second"))).save_epochs(1)
    with pytest.raises(errors.UsageError, match="of another network: .*first.*second"):
        Saved(tmp_path, build=build(("second", "first"))).checkpoints.restore()


def test_classes_that_changed_places_are_noticed(tmp_path):
    Saved(tmp_path, classes=("cat", "dog")).save_epochs(1)
    with pytest.raises(errors.UsageError, match="class list: it has cat where there is dog"):
        Saved(tmp_path, classes=("dog", "cat")).checkpoints.restore()


def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_one_before_stays(tmp_path, monkeypatch):
    saved = Saved(tmp_path).save_epochs(1)
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full)
        with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
            saved.checkpoints.save()
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000001"


def test_a_run_that_may_goes_on_without(tmp_path, monkeypatch, capsys):
    saved = Saved(tmp_path, on_failure="continue").save_epochs(1)
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full)
        saved.checkpoints.save()
    warning = capsys.readouterr().out
    assert "No space left" in warning and "Going on" in warning
    saved.checkpoints.save()
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000002"


def test_what_a_killed_process_left_is_cleared(tmp_path):
    Saved(tmp_path).save_epochs(1)
    (tmp_path / ".partial-123-00000002").mkdir()
    (tmp_path / ".partial-123-00000002" / "variables.index").write_bytes(b"half")
    (tmp_path / ".partial-123-best.json").write_bytes(b"half")
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000001"  # it is not taken for one
    checksummed.clean_up(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
