"""Checkpoints: damage, read errors, another network, a full disk."""

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


def one_layer(classes):
    """The smallest model, with the attribute of a network by which it is found."""
    layers = [keras.Input((4,)), keras.layers.Dense(classes, name="logits")]
    return types.SimpleNamespace(model=keras.Sequential(layers, name="small"))


class Saved:
    """A model with its optimizer, position and checkpoints."""

    def __init__(
        self,
        directory,
        classes=("a", "b", "c"),
        build=one_layer,
        on_failure="stop",
        extra=None,
    ):
        self.model = build(len(classes)).model
        self.optimizer = keras.optimizers.RMSprop()
        self.optimizer.build(self.model.trainable_variables)
        self.position = checkpoints.Position(phases.PHASE1)
        self.checkpoints = checkpoints.Checkpoints(
            directory,
            checkpoints.State(self.model, self.optimizer, self.position, extra or {}),
            classes,
            checkpoints.SavePolicy(minutes=10.0, on_failure=on_failure),
        )

    def save_epochs(self, count):
        for _ in range(count):
            self.position.end_epoch()
            self.checkpoints.save()
        return self


def names(directory):
    return sorted(path.name for path in directory.iterdir())


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


def test_all_state_is_restored(tmp_path):
    """Also of weights that are not trained."""
    before, after = (Saved(tmp_path, build=small_network.small_build) for _ in range(2))
    assert len(before.model.weights) > len(before.model.trainable_weights)
    for variable in (*before.model.weights, *before.optimizer.variables):
        variable.assign(tf.cast(tf.random.uniform(variable.shape, 0, 9), variable.dtype))
    before.position.end_epoch()
    before.position.advance(np.array([1, 2, 3, 4]))
    before.position.best = 0.25
    before.position.seconds, before.position.cpu_seconds = 60.0, 110.0
    before.checkpoints.save()
    assert after.checkpoints.restore() == tmp_path / "00000001"
    pairs = [(saved.model.weights, saved.optimizer.variables) for saved in (before, after)]
    for a, b in zip(*map(itertools.chain.from_iterable, pairs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (after.position.epoch, after.position.step, after.position.best) == (1, 1, 0.25)
    np.testing.assert_array_equal(after.position.totals, [1, 2, 3, 4])
    assert (after.position.seconds, after.position.cpu_seconds) == (60.0, 110.0)


def test_an_epoch_ends_with_zero_steps_and_totals():
    position = checkpoints.Position(phases.PHASE2)
    assert position.best == -np.inf
    position.advance(np.array([1.0, 2, 3, 4]))
    position.advance(np.array([1.0, 0, 0, 4]))
    assert (position.epoch, position.step) == (0, 2)
    np.testing.assert_array_equal(position.totals, [2, 2, 3, 8])
    position.end_epoch()
    assert (position.epoch, position.step, position.totals.tolist()) == (1, 0, [0, 0, 0, 0])


def test_the_keys_of_a_checkpoint_stay_the_same(tmp_path):
    """Runs on disk have them."""
    extra = {"loss_scale": tf.Variable(2.0)}
    saved = Saved(tmp_path, build=small_network.small_build, extra=extra).save_epochs(1)
    keys = {
        name.split("/")[0]
        for name, _ in tf.train.list_variables(str(tmp_path / "00000001" / "variables"))
    }
    assert keys == {
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        *("epoch", "step", "totals", "best", "loss_scale", "model", "optimizer"),
    }
    saved.checkpoints.restore()


def test_the_last_two_are_kept(tmp_path):
    assert Saved(tmp_path).checkpoints.restore() is None
    Saved(tmp_path).save_epochs(4)
    assert names(tmp_path) == ["00000003", "00000004"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_moved_aside_and_the_previous_one_restored(
    tmp_path, damage, capsys
):
    Saved(tmp_path).save_epochs(2)
    damage(tmp_path / "00000002")
    after = Saved(tmp_path)
    assert after.checkpoints.restore() == tmp_path / "00000001"
    assert after.position.epoch == 1
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"warning: the checkpoint {tmp_path / '00000002'} is damaged (")
    assert f"was renamed to {tmp_path / 'damaged-00000002'}." in warning
    assert names(tmp_path) == ["00000001", "damaged-00000002"]
    after.save_epochs(2)
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000003"
    assert names(tmp_path) == ["00000002", "00000003", "damaged-00000002"]


def test_the_epochs_of_a_truncated_checkpoint_are_not_known(tmp_path):
    Saved(tmp_path).save_epochs(2)
    assert checkpoints.finished_epochs(tmp_path) == 2
    (path,) = (tmp_path / "00000002").glob("variables.data*")
    path.write_bytes(b"")
    with pytest.raises(errors.RunError, match="00000002 is damaged .*: resume the training first"):
        checkpoints.finished_epochs(tmp_path)


def test_damaged_checkpoints_of_one_number_are_all_kept(tmp_path):
    saved = Saved(tmp_path).save_epochs(1)
    for _ in range(3):
        saved.checkpoints.save()
        flip_a_bit(tmp_path / "00000002")
        saved.checkpoints.restore()
    assert names(tmp_path) == [
        "00000001", "damaged-00000002", "damaged-00000002-2", "damaged-00000002-3",
    ]  # fmt: skip


def read_error_in_checksum(monkeypatch, folder):
    original = checksummed.file_digest

    def failing(path, *arguments):
        if folder in path.parents:
            raise OSError(errno.EIO, "Input/output error")
        return original(path, *arguments)

    monkeypatch.setattr(checksummed, "file_digest", failing)


def read_error_in_tensorflow(error):
    def patch(monkeypatch, folder):
        original = tf.train.Checkpoint.read

        def failing(self, path):
            if folder.name in path:
                raise error
            return original(self, path)

        monkeypatch.setattr(tf.train.Checkpoint, "read", failing)

    return patch


@pytest.mark.parametrize(
    "fail",
    [
        read_error_in_checksum,
        read_error_in_tensorflow(OSError(errno.EIO, "Input/output error")),
        read_error_in_tensorflow(tf.errors.DataLossError(None, None, "Input/output error")),
    ],
)
def test_after_a_read_error_the_previous_checkpoint_is_restored(
    tmp_path, monkeypatch, capsys, fail
):
    Saved(tmp_path).save_epochs(2)
    fail(monkeypatch, tmp_path / "00000002")
    after = Saved(tmp_path)
    assert after.checkpoints.restore() == tmp_path / "00000001"
    assert after.position.epoch == 1
    assert "Input/output error" in capsys.readouterr().out


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    Saved(tmp_path).save_epochs(2)
    error = tf.errors.ResourceExhaustedError(None, None, "out of memory")
    read_error_in_tensorflow(error)(monkeypatch, tmp_path / "00000002")
    with pytest.raises(tf.errors.ResourceExhaustedError):
        Saved(tmp_path).checkpoints.restore()
    assert names(tmp_path) == ["00000001", "00000002"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_if_none_is_intact_the_run_stops_and_all_stay(tmp_path, damage):
    Saved(tmp_path).save_epochs(2)
    for folder in list(tmp_path.iterdir()):
        damage(folder)
    with pytest.raises(errors.RunError, match="none of the checkpoints .* is intact"):
        Saved(tmp_path).checkpoints.restore()
    assert names(tmp_path) == ["00000001", "00000002"]


def test_layers_that_changed_places_are_detected(tmp_path):
    def build(names):
        layers = [keras.layers.Dense(4, name=name) for name in names]
        model = keras.Sequential([keras.Input((4,)), *layers])
        return lambda classes: types.SimpleNamespace(model=model)

    Saved(tmp_path, build=build(("first", "second"))).save_epochs(1)
    with pytest.raises(errors.UsageError, match="has another network: .*first.*second"):
        Saved(tmp_path, build=build(("second", "first"))).checkpoints.restore()
    assert names(tmp_path) == ["00000001"]


def test_classes_that_changed_places_are_detected(tmp_path):
    Saved(tmp_path, classes=("cat", "dog")).save_epochs(1)
    with pytest.raises(errors.UsageError, match="class list: cat instead of dog"):
        Saved(tmp_path, classes=("dog", "cat")).checkpoints.restore()


def test_a_checkpoint_without_a_loss_scale_does_not_fit_float16(tmp_path):
    Saved(tmp_path).save_epochs(1)
    float16 = Saved(tmp_path, extra={"loss_scale": tf.Variable(2.0)})
    with pytest.raises(errors.RunError, match="does not match the optimizer or the precision"):
        float16.checkpoints.restore()


def full_disk(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_previous_checkpoint_stays(tmp_path, monkeypatch):
    saved = Saved(tmp_path).save_epochs(1)
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full_disk)
        with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
            saved.checkpoints.save()
    assert names(tmp_path) == ["00000001"]
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000001"


def test_on_save_failure_continue_warns_and_saves_the_next_one(tmp_path, monkeypatch, capsys):
    saved = Saved(tmp_path, on_failure="continue").save_epochs(1)
    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", full_disk)
        saved.checkpoints.save()
    warning = capsys.readouterr().out
    assert "No space left" in warning and "Training continues without it" in warning
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_folders", full_disk)  # a network disk that is gone for a while
        saved.checkpoints.save()
    assert "Training continues without it" in capsys.readouterr().out
    saved.checkpoints.save()
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000002"


def test_the_temporary_folder_of_a_killed_process_is_no_checkpoint(tmp_path):
    Saved(tmp_path).save_epochs(1)
    (tmp_path / ".partial-123-00000002").mkdir()
    (tmp_path / ".partial-123-00000002" / "variables.index").write_bytes(b"half")
    assert Saved(tmp_path).checkpoints.restore() == tmp_path / "00000001"
    checksummed.clean_up(tmp_path)
    assert names(tmp_path) == ["00000001"]
