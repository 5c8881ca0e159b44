"""Atomic writes: interruption, two processes, the checks before and after."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys

import pytest

from cnnrnn import errors
from cnnrnn.system import atomic_files
from tests import helpers


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.json"
    atomic_files.write_json(path, {"a": "é"})
    with pytest.raises(ZeroDivisionError), atomic_files.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert "é" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    path, calls = tmp_path / "file.txt", []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def recorded_replace(before, after):
        calls.append("rename")
        replace(before, after)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    atomic_files.write_text(path, "text")
    temporary = tmp_path / f"{atomic_files.temporary_prefix()}file.txt"
    assert calls == [str(temporary), "rename", str(tmp_path)]


@pytest.mark.parametrize("number, is_written", [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_flushed_is_written_to(tmp_path, monkeypatch, number, is_written):
    """As one that a virtual machine shares with its host."""
    fsync, path = os.fsync, tmp_path / "file.txt"

    def only_files(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    with contextlib.nullcontext() if is_written else pytest.raises(OSError):
        atomic_files.write_text(path, "text")
        assert path.read_text() == "text"


def test_the_temporary_file_keeps_the_suffix_and_belongs_to_the_process(tmp_path):
    with atomic_files.replacing(tmp_path / "a.weights.h5") as temporary:
        assert temporary.name.endswith(".weights.h5") and str(os.getpid()) in temporary.name
        temporary.write_text("")


def test_processes_with_the_same_id_write_to_different_files():
    """Those of two containers, which may share a folder."""
    program = "from cnnrnn.system import atomic_files; print(atomic_files.temporary_prefix())"
    prefixes = [
        subprocess.check_output([sys.executable, "-c", program], cwd=helpers.REPOSITORY, text=True)
        for _ in range(2)
    ]
    tokens = [re.fullmatch(r"\.partial-\d+x([0-9a-f]+)-\n", prefix)[1] for prefix in prefixes]
    assert len(set(tokens)) == 2


def test_missing_folders_are_created(tmp_path):
    atomic_files.write_text(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"


def test_too_little_free_space_is_an_error_with_both_sizes(tmp_path):
    atomic_files.check_free_space(tmp_path, 1, "saving", "make room")
    with pytest.raises(errors.RunError, match=r"saving needs 1,000,000,.* MB in .*; make room"):
        atomic_files.check_free_space(tmp_path, 1e18, "saving", "make room")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS")
def test_a_limit_that_the_free_space_does_not_show_is_an_error(tmp_path):
    """Of a process here; quotas are of users and folders."""
    program = """
import pathlib, resource, signal, sys
from cnnrnn.system import atomic_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
atomic_files.check_writable_size(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
"""
    for size, error in ((1000, ""), (1001, "OSError: [Errno 27] File too large")):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "file"), str(size)],
            cwd=helpers.REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert (done.stderr.splitlines() or [""])[-1] == error


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_reserve_space_is_written_to(tmp_path, monkeypatch, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    atomic_files.check_writable_size(tmp_path / "file", 1000)


def test_a_write_error_is_one_line(tmp_path):
    error = atomic_files.write_error(tmp_path, OSError("disk\nfull"))
    assert str(error).startswith(f"cannot save to {tmp_path}: disk; everything saved earlier is")


def test_a_file_name_that_is_not_utf_8_survives_json(tmp_path):
    name = os.fsdecode(b"not_utf8_\xff")
    atomic_files.write_json(tmp_path / "x.json", {"name": name})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": name}
