"""Best weights: saving, replacing, damage, other classes, a full disk."""

import errno
import json
import os
import pathlib

import keras
import numpy as np
import pytest

from cnnrnn import errors, metrics, phases
from cnnrnn.runs import best_weights
from cnnrnn.system import atomic_files

CLASSES = ("a", "b", "c")
MEANS = metrics.Means(0.5, 0.25, 0.75, 8)


def network(value=0.0, units=7):
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(units, name="hidden"), keras.layers.Dense(3)]
    )
    model.set_weights([np.full(variable.shape, value) for variable in model.weights])
    return model


def save(directory, value=1.0, epoch=3, phase=phases.PHASE1):
    best_weights.save(directory, phase, network(value), CLASSES, epoch, MEANS)
    return best_weights.find(directory, phase)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_saved_weights_are_found_and_loaded(tmp_path):
    best = save(tmp_path)
    assert (best.phase, best.epoch, best.validation) == ("phase1", 3, MEANS)
    assert best == best_weights.latest(tmp_path) and best.class_names == CLASSES
    model = network()
    best_weights.load(best, model, CLASSES)
    assert all(np.all(array == 1.0) for array in model.get_weights())


def test_the_keys_of_the_record_stay_the_same(tmp_path):
    """Runs on disk have them."""
    save(tmp_path)
    assert set(json.loads((tmp_path / "phase1.json").read_text())) == {
        *("weights", "sha256", "class_names", "phase", "epoch", "validation", "seal_sha256")
    }


def test_new_weights_replace_those_of_their_phase_only(tmp_path):
    save(tmp_path, phase=phases.PHASE2)
    save(tmp_path)
    (tmp_path / ".partial-1-phase1-epoch0004.weights.h5").write_text("half")
    (tmp_path / "copy of phase1-epoch0003.weights.h5").write_text("of the user")
    save(tmp_path, epoch=5)
    assert names(tmp_path) == [
        "copy of phase1-epoch0003.weights.h5",
        *("phase1-epoch0005.weights.h5", "phase1.json"),
        *("phase2-epoch0003.weights.h5", "phase2.json"),
    ]
    assert best_weights.latest(tmp_path).phase == "phase2"


def test_a_folder_without_weights_has_none(tmp_path):
    assert best_weights.find(tmp_path, phases.PHASE1) is None
    with pytest.raises(errors.UsageError, match="there are no trained weights in .*: run phase1"):
        best_weights.latest(tmp_path)


def test_weights_that_cannot_be_written_leave_the_previous_ones(tmp_path, monkeypatch):
    def full_disk(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = save(tmp_path)
    monkeypatch.setattr(atomic_files, "sync", full_disk)
    with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
        save(tmp_path, epoch=4)
    assert best_weights.find(tmp_path, phases.PHASE1) == before
    assert names(tmp_path) == ["phase1-epoch0003.weights.h5", "phase1.json"]


def test_weights_over_the_quota_do_not_reach_hdf5(tmp_path, monkeypatch):
    """A failed write in it can crash the process."""

    def over_quota(descriptor, start, size):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    def written(model, path):
        raise AssertionError

    monkeypatch.setattr(os, "posix_fallocate", over_quota, raising=False)
    monkeypatch.setattr(keras.Model, "save_weights", written)
    with pytest.raises(errors.RunError, match="cannot save to .*Disk quota exceeded"):
        save(tmp_path)
    assert names(tmp_path) == []


def test_earlier_weights_that_cannot_be_removed_are_left_to_the_next_save(tmp_path, monkeypatch):
    unlink = pathlib.Path.unlink

    def stale(path, **keywords):
        if path.name == "phase1-epoch0003.weights.h5":
            raise OSError(errno.ESTALE, "Stale file handle")
        unlink(path, **keywords)

    save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "unlink", stale)
        save(tmp_path, epoch=4)
    assert best_weights.find(tmp_path, phases.PHASE1).epoch == 4
    save(tmp_path, epoch=5)
    assert names(tmp_path) == ["phase1-epoch0005.weights.h5", "phase1.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    save(tmp_path)
    (tmp_path / "phase1.json").write_bytes(content)
    with pytest.raises(errors.RunError, match=r"phase1\.json is damaged \("):
        best_weights.find(tmp_path, phases.PHASE1)


def test_a_missing_file_is_one_sentence(tmp_path):
    best = save(tmp_path)
    best.weights.unlink()
    assert best_weights.find(tmp_path, phases.PHASE1) == best  # the record can still be read
    with pytest.raises(errors.RunError, match=r"epoch0003\.weights\.h5 cannot be read \(No such"):
        best_weights.load(best, network(), CLASSES)


def test_a_damaged_file_is_not_loaded(tmp_path):
    best = save(tmp_path)
    content = bytearray(best.weights.read_bytes())
    content[-1] ^= 1
    best.weights.write_bytes(content)
    with pytest.raises(errors.RunError, match="is damaged: its content has changed"):
        best_weights.load(best, network(), CLASSES)


def test_weights_of_other_classes_are_refused(tmp_path):
    with pytest.raises(errors.UsageError, match="the first that differ are 'b' and 'x'"):
        best_weights.load(save(tmp_path), network(), ("a", "x", "c"))


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(errors.RunError, match="does not fit this network"):
        best_weights.load(save(tmp_path), network(units=8), CLASSES)
