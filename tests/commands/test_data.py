"""`data`, and every command on a data set whose path is not UTF-8."""

import io
import json
import os
import pathlib
import sys

import pytest

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.commands import data, evaluate, train
from cnnrnn.data.tiny_imagenet_100 import dummy
from tests import helpers


def test_the_images_of_each_class_are_counted(images, capsys):
    data.run((), config_lib.Config.of(dataset=str(images)))
    out = capsys.readouterr().out
    assert "3 classes, 18 training and 9 validation" in out
    lines = [line.split() for line in out.splitlines()]
    assert lines[-3:] == [["6", "3", name] for name in helpers.CLASSES]


@pytest.mark.parametrize("arguments", [["restructure"], ["restructure", "a"], ["other"]])
def test_unknown_arguments_are_refused(arguments):
    with pytest.raises(errors.UsageError, match="restructure SRC DST"):
        data.run(arguments, config_lib.Config.of())


def test_the_original_layout_is_copied_into_class_folders(tmp_path, capsys):
    content = dummy.files(["n00000001"], train_per_class=2, validation_per_class=1)
    source = dummy.write_zip(tmp_path / "source.zip", content)
    data.run(["restructure", str(source), str(tmp_path / "copy")], config_lib.Config.of())
    assert len(list((tmp_path / "copy").rglob("*.JPEG"))) == 3
    assert str(tmp_path / "copy") in capsys.readouterr().out


@pytest.fixture
def not_utf8(tmp_path) -> str:
    """A data set in a folder whose name is not UTF-8."""
    root = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/bilder-\xff"))
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    helpers.write_classes(root / "train", 6, seed=1)
    helpers.write_classes(root / "val", 3, seed=2)
    return str(root)


def strict_stdout(monkeypatch) -> io.TextIOWrapper:
    """A standard output that takes only UTF-8."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    return stdout


def test_a_path_that_is_not_utf8_is_printed_with_escapes(not_utf8, in_process, monkeypatch):
    stdout = strict_stdout(monkeypatch)
    assert in_process("data", f"--dataset={not_utf8}")[0] == 0
    stdout.flush()
    assert rb"bilder-\udcff, 3 classes, 18 training" in stdout.buffer.getvalue()


@pytest.mark.thorough
def test_a_run_on_a_path_that_is_not_utf8_is_recorded(
    not_utf8, small_network, small_config, one_replica, monkeypatch
):
    stdout = strict_stdout(monkeypatch)
    settings = small_config.replace(dataset=not_utf8, epochs=(1, 1))
    train.phase1((), settings)
    evaluate.run((), settings)
    stdout.flush()
    assert rb"bilder-\udcff" in stdout.buffer.getvalue()
    folder = settings.run_dir
    recorded = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert recorded["data"]["dataset"] == not_utf8  # JSON escapes give back the same path
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["dataset"].endswith(r"bilder-\udcff")  # printable, for reports
