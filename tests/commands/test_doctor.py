"""The report on a folder with images of many kinds, most of them bad."""

import json
import os
import shutil

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import doctor
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.system import console
from tests import bad_images, helpers


def examine(dataset, tmp_path):
    """The findings in the report, and the messages."""
    settings = config.Config.of(dataset=str(dataset), runs_dir=str(tmp_path), run="d")
    with console.captured() as messages:
        try:
            doctor.run((), settings)
        except errors.RunError as error:
            messages.append(str(error))
    report = json.loads((tmp_path / "d" / "doctor.json").read_text(encoding="utf-8"))
    return report["findings"], "\n".join(messages)


def of_kind(findings, kind):
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


def test_bad_images_are_listed_with_their_problem_and_not_changed(folder, tmp_path):
    before = snapshot(folder)
    findings, printed = examine(folder, tmp_path)
    assert snapshot(folder) == before
    bad = of_kind(findings, "bad image")
    expected = bad_images.BAD | set(bad_images.NO_FILES)
    assert len(bad) == len(expected)
    for name in expected:
        (line,) = [line for line in bad if f"/{name} (" in line]
        if name in bad_images.NO_FILES:
            assert bad_images.NO_FILES[name] in line
    assert f"bad image: {len(bad)}" in printed
    assert f"and {len(bad) - doctor._SHOWN} more" in printed
    report = (tmp_path / "d" / "doctor.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert [line for line in report if "bad image\t" in line] == [f"bad image\t{b}" for b in bad]
    assert [line.split("\t")[0] for line in report] == [finding["kind"] for finding in findings]
    assert f"{len(bad)} problem(s) listed" in printed and "--bad_images=skip" in printed


def test_oddities_are_listed(folder, tmp_path):
    findings, _ = examine(folder, tmp_path)
    for kind, parts in {
        "wrong extension": ("png called.jpg", "jpeg_called.png"),
        "EXIF rotation": (
            "rotated.jpg (class 'gray'): EXIF orientation 6 is applied",
            "is ignored; only JPEGs are rotated",
        ),
        "tiny image": ("one_pixel.png", "long.png"),
        "long image": ("long.png (class 'gray'): 400 x 3",),
        "animation": ("the first of 3 frames",),
        "transparency": (
            "transparent.png (class 'gray'): transparent pixels are read in the colors",
            "transparent.gif (class 'gray'): transparent pixels are read as black",
        ),
        "16 bits": ("bits16.png (class 'gray'): 16 bits per channel: only the upper 8 are used",),
        "odd name": (
            r"zwei\nzeilen.png",
            "not_utf8_\\udcff.png",
            "letters and accents as separate",
        ),
        "duplicate": ("good.jpg (class 'gray'): 1 more: ",),
    }.items():
        listed = "\n".join(of_kind(findings, kind))
        for part in parts:
            assert part in listed, (kind, part, listed)


def test_contradictions_between_classes_and_splits(images, tmp_path):
    train, val = images / "train", images / "val"
    one = next((train / "black").iterdir())
    shutil.copy(one, train / "white" / "one.png")
    shutil.copy(one, val / "black" / "one.png")
    findings, printed = examine(images, tmp_path)
    (conflict,) = of_kind(findings, "label conflict")
    assert (
        "is in the classes 'black', 'white'" in conflict
        and str(train / "white" / "one.png") in conflict
    )
    (leak,) = of_kind(findings, "in both splits")
    assert str(val / "black" / "one.png") in leak
    assert "problem(s)" not in printed  # it can be trained on


def test_a_class_without_images_is_listed_beside_the_only_one_with_some(images, tmp_path):
    for path in (images / "train" / "white").iterdir():
        path.rename(path.with_suffix(".cr2"))
    shutil.rmtree(images / "train" / "gray")
    shutil.rmtree(images / "val")
    findings, printed = examine(images, tmp_path)
    empty, single = of_kind(findings, "folder")
    assert f"the class folder {images / 'train' / 'white'} holds no images but" in empty
    assert "holds images of 1 class(es) (only 'black'): a classifier needs at least two" in single
    assert "2 problem(s) listed" in printed


def test_classes_without_images_are_named_if_there_is_no_image_at_all(images, tmp_path):
    shutil.rmtree(images / "val")
    for path in (images / "train").glob("*/*"):
        path.unlink()
    with pytest.raises(errors.UsageError) as raised:
        examine(images, tmp_path)
    for name in ("black", "gray", "white"):
        assert f"the class folder {images / 'train' / name} holds no images" in str(raised.value)


def test_notes_that_explain_an_error_are_printed(images, tmp_path, capsys):
    """The error says that the folders are named like splits; the notes say why they are none."""
    for name in ("train", "val"):
        for path in (images / name).iterdir():
            shutil.rmtree(path)
    with pytest.raises(errors.UsageError, match="named like splits"):
        doctor.run((), config.Config.of(dataset=str(images), runs_dir=str(tmp_path)))
    assert "note: " in (out := capsys.readouterr().out) and "contains no class folders" in out


def test_problems_of_folders_and_classes_are_listed(images, tmp_path):
    train, val = images / "train", images / "val"
    (train / "empty").mkdir()
    (train / "pipes").mkdir()
    os.mkfifo(train / "pipes" / "a.jpg")
    (val / "unknown").mkdir()
    shutil.copy(next((val / "white").iterdir()), val / "unknown" / "a.png")
    (train / "gray" / "round").symlink_to(train / "gray")
    (train / "gray" / "notes.txt").write_text("x")
    findings, printed = examine(images, tmp_path)
    folders = "\n".join(of_kind(findings, "folder"))
    assert f"the class folder {train / 'empty'} holds no images" in folders
    assert "the class 'unknown', which the training folder lacks" in folders
    notes = "\n".join(of_kind(findings, "note"))
    assert "links to a folder already listed" in notes and "1 .txt" in notes
    assert of_kind(findings, "empty class")[0] == "pipes: no training images"
    assert of_kind(findings, "small class")[0] == "black: 6 training images"
    assert "3 problem(s) listed" in printed


def test_what_training_would_refuse_is_a_problem(images, tmp_path):
    shutil.rmtree(images / "val")
    for path in sorted((images / "train" / "black").iterdir())[1:]:
        path.unlink()
    findings, printed = examine(images, tmp_path)
    assert "the class 'black' has one image" in of_kind(findings, "folder")[0]
    assert "1 problem(s) listed" in printed and "--bad_images" not in printed


def test_duplicates_that_a_split_separates_are_in_both_splits(images, tmp_path):
    shutil.rmtree(images / "val")
    originals = sorted((images / "train" / "black").iterdir())
    for path in originals:
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    findings, _ = examine(images, tmp_path)
    pairs = len(of_kind(findings, "in both splits")) + len(of_kind(findings, "duplicate"))
    assert of_kind(findings, "in both splits") and pairs == len(originals)


def test_validation_images_that_a_fold_replaces_are_not_examined(images, tmp_path):
    (images / "val" / "black" / "broken.png").write_bytes(b"x")
    with pytest.raises(errors.RunError, match="1 problem"):
        doctor.run((), config.Config.of(dataset=str(images), runs_dir=str(tmp_path), run="a"))
    doctor.run(
        (), config.Config.of(dataset=str(images), runs_dir=str(tmp_path), run="b", fold="1/2")
    )


def test_a_good_data_set_has_no_problems(tmp_path):
    root = tmp_path / "in order"
    helpers.write_classes(root, 40)
    findings, printed = examine(root, tmp_path)
    assert {f["kind"] for f in findings} == {"note", "tiny image"}
    assert "doctor: 120 images examined" in printed


def test_images_that_training_would_skip_are_listed_but_no_problem(images, tmp_path):
    (images / "train" / "gray" / "gray_00.png").write_bytes(b"no image")
    settings = config.Config.of(
        dataset=str(images), runs_dir=str(tmp_path), run="d", bad_images="skip"
    )
    doctor.run((), settings)
    findings = json.loads((tmp_path / "d" / "doctor.json").read_text(encoding="utf-8"))["findings"]
    assert "gray_00.png" in of_kind(findings, "bad image")[0]
    with pytest.raises(errors.RunError, match="1 problem.s. listed. Bad images can be left out"):
        doctor.run((), settings.replace(bad_images="stop"))


def test_the_other_images_can_be_trained_on(folder, capsys):
    data = dataset_lib.load(config.Config.of(dataset=str(folder), bad_images="skip"))
    good = len(bad_images.FILES) - len(bad_images.BAD) + 1  # and the name that is not UTF-8
    assert len(data.train) == 18 + good
    count = len(bad_images.BAD) + len(bad_images.NO_FILES)
    assert f"{count} of {27 + good + count} images" in capsys.readouterr().out


def test_a_printed_finding_is_of_bounded_length_and_the_report_complete(images, tmp_path):
    one = next((images / "train" / "black").iterdir())
    for number in range(99):
        shutil.copy(one, one.with_name(f"copy_{number}.png"))
    findings, printed = examine(images, tmp_path)
    (duplicates,) = of_kind(findings, "duplicate")
    assert "99 more: " in duplicates and "copy_98.png" in duplicates
    assert max(map(len, printed.splitlines())) < 420
