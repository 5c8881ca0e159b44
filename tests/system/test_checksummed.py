"""Checksummed folders and JSON: replacing, kills at every point, damage."""

import errno
import inspect
import itertools
import os
import subprocess
import sys

import pytest

from cnnrnn.system import checksummed
from tests import helpers

# Calls between which a kill leaves different files on disk.
CALLS = ("rename", "replace", "fsync")


def write(folder, text):
    with checksummed.writing(folder, {"text": text}) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text(text)


def read(folder):
    """The text of an intact folder; its file and its metadata must agree."""
    text = checksummed.read_metadata(folder)["text"]
    assert (folder / "sub" / "file").read_text() == text
    return text


def names(parent):
    return sorted(path.name for path in parent.iterdir())


KILLED_AT_CALL = f"""
import os, pathlib, sys
from cnnrnn.system import checksummed
{inspect.getsource(write)}
calls = 0
def killed_at(number, function):
    def call(*arguments):
        global calls
        calls += 1
        if calls == number:
            os._exit(9)
        return function(*arguments)
    return call
for name in {CALLS}:
    setattr(os, name, killed_at(int(sys.argv[2]), getattr(os, name)))
write(pathlib.Path(sys.argv[1]), "new")
"""


def test_a_kill_at_any_point_leaves_the_old_or_the_new_folder(tmp_path):
    outcomes = []
    for number in itertools.count(1):
        parent = tmp_path / str(number)
        write(parent / "folder", "old")
        ended = subprocess.run(
            [sys.executable, "-c", KILLED_AT_CALL, str(parent / "folder"), str(number)],
            cwd=helpers.REPOSITORY,
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == 9
        checksummed.clean_up(parent)
        outcomes.append(read(parent / "folder"))
        assert names(parent) == ["folder"]
    assert read(parent / "folder") == "new"
    assert outcomes == sorted(outcomes, reverse=True) and set(outcomes) == {"old", "new"}


@pytest.mark.parametrize("name", CALLS)
def test_an_exception_at_any_call_leaves_the_old_or_the_new_folder(tmp_path, monkeypatch, name):
    original = getattr(os, name)
    for number in itertools.count(1):
        folder = tmp_path / str(number) / "folder"
        write(folder, "old")
        calls = itertools.count(1)

        def raising(*arguments, calls=calls, number=number):
            if next(calls) == number:
                raise KeyboardInterrupt
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, raising)
            try:
                write(folder, "new")
                break
            except KeyboardInterrupt:
                pass
        assert read(folder) in ("old", "new")
        assert names(folder.parent) == ["folder"]
    assert number > 1 and read(folder) == "new"


def test_an_exception_in_the_block_leaves_the_old_folder(tmp_path):
    write(tmp_path / "folder", "old")
    with pytest.raises(ZeroDivisionError):
        with checksummed.writing(tmp_path / "folder", {}) as temporary:
            (temporary / "file").write_text("half")
            raise ZeroDivisionError
    assert read(tmp_path / "folder") == "old" and names(tmp_path) == ["folder"]


def test_a_folder_left_under_its_replaced_name_can_be_written(tmp_path):
    write(tmp_path / "folder", "old")
    os.rename(tmp_path / "folder", tmp_path / ".replaced-folder")
    write(tmp_path / "folder", "new")
    assert read(tmp_path / "folder") == "new" and names(tmp_path) == ["folder"]


@pytest.mark.parametrize("exists", [True, False])
def test_the_target_of_a_symbolic_link_is_replaced(tmp_path, exists):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "folder"
    link.symlink_to(tmp_path / "disk" / "target")
    if exists:
        write(tmp_path / "disk" / "target", "old")
    for name in ("target", "other-target"):
        (tmp_path / "disk" / f".partial-1-{name}").mkdir()  # of a killed process
    for text in ("new", "newer"):
        write(link, text)
        assert link.is_symlink() and read(link) == text
    assert names(tmp_path) == ["disk", "folder"] and names(tmp_path / "disk") == [
        ".partial-1-other-target", "target"
    ]  # fmt: skip


def test_clean_up_removes_temporary_files_and_folders_only(tmp_path):
    write(tmp_path / "folder", "kept")
    (tmp_path / ".partial-123-folder").mkdir()
    (tmp_path / ".partial-123-folder" / "file").write_text("half")
    (tmp_path / ".partial-123-best.json").write_text("half")
    (tmp_path / ".partial-123-link").symlink_to(tmp_path / "folder")
    checksummed.clean_up(tmp_path)
    assert names(tmp_path) == ["folder"] and read(tmp_path / "folder") == "kept"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def unlink(path):
    path.unlink()


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "sub/file has 3 bytes instead of 5"),
        (flip_a_bit, "content of sub/file has changed"),
        (unlink, "sub/file is missing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    write(tmp_path / "folder", "words")
    damage(tmp_path / "folder" / "sub" / "file")
    with pytest.raises(ValueError, match=message):
        checksummed.read_metadata(tmp_path / "folder")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, unlink])
def test_damaged_checksums_are_reported(tmp_path, damage):
    write(tmp_path / "folder", "words")
    damage(tmp_path / "folder" / checksummed.CHECKSUMS)
    with pytest.raises(ValueError, match=r"seal\.json (is missing or damaged|has changed)"):
        checksummed.read_metadata(tmp_path / "folder")


def test_only_the_files_below_a_folder_can_be_checked(tmp_path):
    write(tmp_path / "folder", "words")
    (tmp_path / "folder" / "sub" / "file").unlink()
    assert checksummed.read_metadata(tmp_path / "folder", below="su") == {"text": "words"}
    with pytest.raises(ValueError, match="sub/file is missing"):
        checksummed.read_metadata(tmp_path / "folder", below="sub")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def failing(path, algorithm="sha256"):
        raise OSError(errno.EIO, "Input/output error")

    write(tmp_path / "folder", "words")
    monkeypatch.setattr(checksummed, "file_digest", failing)
    with pytest.raises(ValueError, match=r"sub/file cannot be read \(Input/output error\)"):
        checksummed.read_metadata(tmp_path / "folder")


def test_a_changed_json_file_is_detected(tmp_path):
    path = tmp_path / "best.json"
    checksummed.write_json(path, {"epoch": 12, "names": ["ü"]})
    assert checksummed.read_json(path) == {"epoch": 12, "names": ["ü"]}
    path.write_text(path.read_text().replace("12", "13"))
    with pytest.raises(ValueError, match="has changed"):
        checksummed.read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="damaged"):
        checksummed.read_json(path)
