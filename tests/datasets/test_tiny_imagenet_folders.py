"""Tests of copying the original layout into class folders."""

import errno
import os
import pathlib
import shutil

import pytest

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import dummy, original_layout, sources
from cnnrnn.datasets import tiny_imagenet_folders

WNIDS = ["n00000003", "n00000001", "n00000002"]


@pytest.fixture
def content() -> dict[str, bytes]:
    return dummy.files(WNIDS, train_per_class=3, validation_per_class=2)


@pytest.fixture(params=["folder", "zip"])
def source(request, tmp_path, content) -> pathlib.Path:
    if request.param == "zip":
        return dummy.write_zip(tmp_path / "source.zip", content)
    return dummy.write_folder(tmp_path / "source", content)


def _snapshot(root: pathlib.Path) -> dict[str, bytes]:
    """The content of every file below a folder, including hidden ones, by path."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def _expected(content: dict[str, bytes]) -> dict[str, bytes]:
    """The content of a complete copy, by path."""
    expected = {name: content[name] for name in ("wnids.txt", "words.txt")}
    for name, data in content.items():
        parts = name.split("/")
        if name.startswith("train/") and "images" in parts:
            expected[f"train/{parts[1]}/{parts[3]}"] = data
    for line in content["val/val_annotations.txt"].decode().splitlines():
        name, wnid = line.split("\t")[:2]
        expected[f"val/{wnid}/{name}"] = content[f"val/images/{name}"]
    return expected


def test_files_are_copied_byte_for_byte_and_the_source_is_unchanged(source, content, tmp_path):
    before = source.read_bytes() if source.is_file() else _snapshot(source)
    summary = tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert _snapshot(tmp_path / "copy") == _expected(content)
    assert (source.read_bytes() if source.is_file() else _snapshot(source)) == before
    assert (summary.classes, summary.train, summary.validation) == (3, 9, 6)
    assert summary.copied == 15
    assert f"./run.sh phase1 --dataset={tmp_path / 'copy'}" in str(summary)


def test_class_folders_sort_into_the_order_of_the_original(source, tmp_path):
    with original_layout.open_source(source) as opened:
        layout = original_layout.read_source(opened)
    tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    for split, examples in (("train", layout.train), ("val", layout.validation)):
        walked = [
            (path.name, label)
            for label, folder in enumerate(sorted((tmp_path / "copy" / split).iterdir()))
            for path in sorted(folder.iterdir())
        ]
        assert walked == [(path.name, label) for path, label in examples]


def test_a_second_call_copies_nothing(source, tmp_path):
    tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*.JPEG")}
    assert tiny_imagenet_folders.restructure(source, tmp_path / "copy").copied == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_stopped_copy_is_incomplete_and_resumes(source, content, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    original = sources.Folder.copy if source.is_dir() else sources.Archive.copy
    copied = []

    def stop_at_the_tenth(self, path, destination):
        if len(copied) == 10:
            raise KeyboardInterrupt
        copied.append(path.name)
        original(self, path, destination)

    with monkeypatch.context() as patch:
        patch.setattr(sources.Folder, "copy", stop_at_the_tenth)
        patch.setattr(sources.Archive, "copy", stop_at_the_tenth)
        with pytest.raises(KeyboardInterrupt):
            tiny_imagenet_folders.restructure(source, copy)
    # Six validation images and one training class; nothing of the class that was begun.
    assert sorted(path.name for path in (copy / "train").iterdir()) == ["n00000001"]
    assert sorted(path.name for path in (copy / "val").iterdir()) == sorted(WNIDS)
    assert not (copy / "wnids.txt").exists()

    assert tiny_imagenet_folders.restructure(source, copy).copied == 6
    assert _snapshot(copy) == _expected(content)


def test_a_class_that_loses_files_while_it_is_copied_is_not_completed(
    source, tmp_path, monkeypatch
):
    """As by another call for the same destination, which removes unfinished folders."""
    kind = sources.Folder if source.is_dir() else sources.Archive
    original, copied = kind.copy, []

    def loses_the_first(self, path, destination):
        original(self, path, destination)
        copied.append(destination)
        if len(copied) == 2:
            copied[0].unlink()

    monkeypatch.setattr(kind, "copy", loses_the_first)
    with pytest.raises(errors.RunError, match="removed or changed meanwhile; see whether another"):
        tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert _snapshot(tmp_path / "copy") == {}


def test_temporary_files_of_a_killed_copy_are_removed(source, content, tmp_path):
    left = tmp_path / "copy/train/.partial-123-n00000002"
    left.mkdir(parents=True)
    (left / "n00000002_0.JPEG").write_bytes(b"half of it")
    (tmp_path / "copy/.partial-123-words.txt").write_bytes(b"half of it")
    tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert _snapshot(tmp_path / "copy") == _expected(content)


@pytest.mark.parametrize("change", ["shorter", "missing", "extra"])
def test_the_error_names_a_class_that_differs_from_the_source(source, tmp_path, change):
    tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    folder = tmp_path / "copy/train/n00000002"
    if change == "shorter":
        (folder / "n00000002_0.JPEG").write_bytes(b"x")
    elif change == "missing":
        (folder / "n00000002_0.JPEG").unlink()
    else:
        (folder / "mine.JPEG").write_bytes(b"x")
    before = _snapshot(tmp_path / "copy")
    with pytest.raises(errors.UsageError, match=f"{folder}: differs"):
        tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert _snapshot(tmp_path / "copy") == before


@pytest.mark.parametrize(
    "foreign",
    ["notes.txt", "train/n99999999/a.JPEG", "val/stray.JPEG", ".partial-123-mine"],
)
def test_the_error_names_other_files_and_nothing_is_changed(source, tmp_path, foreign):
    path = tmp_path / "copy" / foreign
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    named = "/".join(path.relative_to(tmp_path).parts[:3])
    with pytest.raises(errors.UsageError, match=f"{named}: was not written"):
        tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert _snapshot(tmp_path / "copy") == {foreign: b"mine"}


@pytest.mark.parametrize("within", [".", "copy", "train/../deep/copy"])
def test_a_destination_inside_the_source_is_refused(tmp_path, content, within):
    source = dummy.write_folder(tmp_path / "source", content)
    before = _snapshot(source)
    with pytest.raises(errors.UsageError, match="is the source or inside it"):
        tiny_imagenet_folders.restructure(source, source / within)
    assert _snapshot(source) == before


def test_a_link_into_the_source_is_refused(tmp_path, content):
    source = dummy.write_folder(tmp_path / "source", content)
    (tmp_path / "elsewhere").symlink_to(source, target_is_directory=True)
    with pytest.raises(errors.UsageError, match="is the source or inside it"):
        tiny_imagenet_folders.restructure(source, tmp_path / "elsewhere" / "copy")


def test_a_destination_that_is_a_file_is_refused(source, tmp_path):
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(errors.UsageError, match="is not a folder"):
        tiny_imagenet_folders.restructure(source, tmp_path / "copy")


def test_an_incomplete_source_is_refused_before_anything_is_written(tmp_path, content):
    del content["val/images/val_3.JPEG"]
    source = dummy.write_folder(tmp_path / "source", content)
    with pytest.raises(errors.UsageError, match="val_3.JPEG"):
        tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_missing_source_is_an_error(tmp_path):
    with pytest.raises(errors.UsageError, match="nowhere: no such folder"):
        tiny_imagenet_folders.restructure(tmp_path / "nowhere", tmp_path / "copy")


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOSPC, errors.RunError, "the disk is full"),
        (errno.EACCES, errors.UsageError, "no permission"),
        (errno.EROFS, errors.UsageError, "no permission"),
        (errno.EIO, errors.RunError, os.strerror(errno.EIO)),
    ],
)
def test_errors_of_the_operating_system_are_one_sentence(
    tmp_path, content, monkeypatch, number, kind, sentence
):
    source = dummy.write_folder(tmp_path / "source", content)

    def refuse(source, destination):
        pathlib.Path(destination).write_bytes(b"the first half")
        raise OSError(number, os.strerror(number), str(destination))

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(kind, match=sentence) as caught:
        tiny_imagenet_folders.restructure(source, tmp_path / "copy")
    assert "\n" not in str(caught.value)
    assert _snapshot(tmp_path / "copy") == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_destination_is_refused(source, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(errors.UsageError, match="no permission"):
        tiny_imagenet_folders.restructure(source, locked / "copy")
