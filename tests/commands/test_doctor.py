"""The report on a folder of some forty kinds of image, most of them bad."""

import json
import os
import shutil

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import doctor
from cnnrnn.datasets import dataset as dataset_lib
from tests import bad_images, helpers


def examine(dataset, tmp_path, **settings):
    """The findings, and what was printed."""
    lines = []
    wanted = config.Config.of(dataset=str(dataset), runs_dir=str(tmp_path), run="d", **settings)
    try:
        doctor.run((), wanted, lines.append)
    except errors.RunError as error:
        lines.append(str(error))
    report = json.loads((tmp_path / "d" / "doctor.json").read_text(encoding="utf-8"))
    return report["findings"], "\n".join(lines)


def found(findings, kind):
    return [f"{f['what']}: {f['why']}" for f in findings if f["kind"] == kind]


def snapshot(root):
    def state(path):
        info = os.lstat(path)
        return info.st_size, info.st_mtime_ns, info.st_ino, info.st_mode

    return {str(path): state(path) for path in root.rglob("*")}


@pytest.fixture
def folder(images):
    bad_images.write(images / "train" / "gray")
    return images


def test_each_bad_image_is_listed_with_its_reason_and_none_is_changed(folder, tmp_path):
    before = snapshot(folder)
    findings, printed = examine(folder, tmp_path)
    assert snapshot(folder) == before
    bad = found(findings, "bad image")
    expected = bad_images.BAD | set(bad_images.NO_FILES)
    assert len(bad) == len(expected)
    for name in expected:
        (line,) = [line for line in bad if f"/{name} (" in line]
        if name in bad_images.NO_FILES:
            assert bad_images.NO_FILES[name] in line
    assert f"bad image: {len(bad)}" in printed
    assert f"{len(bad)} finding(s) keep" in printed and "--bad_images=skip" in printed


def test_what_is_odd_is_listed(folder, tmp_path):
    findings, _ = examine(folder, tmp_path)
    for kind, parts in {
        "wrong extension": ("png called.jpg", "jpeg_called.png"),
        "EXIF rotation": ("rotated.jpg (class 'gray'): orientation 6: is turned", "is not turned"),
        "tiny image": ("one_pixel.png", "long.png"),
        "long image": ("long.png (class 'gray'): 400 x 3",),
        "animation": ("the first of 3 frames",),
        "odd name": (r"zwei\nzeilen.png", "not_utf8_\\udcff.png", "letters and accents apart"),
        "duplicate": ("good.jpg (class 'gray'): 1 more: ",),
    }.items():
        listed = "\n".join(found(findings, kind))
        for part in parts:
            assert part in listed, (kind, part, listed)


def test_contradictions_between_classes_and_splits(images, tmp_path):
    train, val = images / "train", images / "val"
    one = next((train / "black").iterdir())
    shutil.copy(one, train / "white" / "one.png")
    shutil.copy(one, val / "black" / "one.png")
    findings, printed = examine(images, tmp_path)
    (conflict,) = found(findings, "label conflict")
    assert "is of 'black', 'white'" in conflict and str(train / "white" / "one.png") in conflict
    (leak,) = found(findings, "in both splits")
    assert str(val / "black" / "one.png") in leak
    assert "finding(s) keep" not in printed  # it can be trained on


def test_folders_and_classes(images, tmp_path):
    train, val = images / "train", images / "val"
    (train / "empty").mkdir()
    (train / "pipes").mkdir()
    os.mkfifo(train / "pipes" / "a.jpg")
    (val / "unknown").mkdir()
    shutil.copy(next((val / "white").iterdir()), val / "unknown" / "a.png")
    (train / "gray" / "round").symlink_to(train / "gray")
    (train / "gray" / "notes.txt").write_text("x")
    findings, printed = examine(images, tmp_path)
    folders = "\n".join(found(findings, "folder"))
    assert f"the class folder {train / 'empty'} holds no images" in folders
    assert "the class 'unknown' that the training folder lacks" in folders
    notes = "\n".join(found(findings, "note"))
    assert "leads back" in notes and "1 .txt" in notes
    assert found(findings, "empty class")[0] == "pipes: no training images"
    assert found(findings, "small class")[0] == "black: 6 training images"
    assert "4 finding(s) keep" in printed


def test_a_data_set_in_order(tmp_path):
    root = tmp_path / "in order"
    helpers.write_classes(root, 40)
    findings, printed = examine(root, tmp_path)
    assert {f["kind"] for f in findings} == {"note", "tiny image"}
    assert "doctor: 120 images examined" in printed


def test_training_takes_the_rest(folder, tmp_path):
    settings = config.Config.of(dataset=str(folder), bad_images="skip")
    log = []
    data = dataset_lib.load(settings, log.append)
    good = len(bad_images.FILES) - len(bad_images.BAD) + 1  # and the name that is not UTF-8
    assert len(data.train) == 18 + good
    count = len(bad_images.BAD) + len(bad_images.NO_FILES)
    assert f"{count} of {27 + good + count} images" in "\n".join(log)
