"""Arguments that name images, and reading those images."""

import io
import os
import shutil
import sys

import pytest

from cnnrnn import errors
from cnnrnn.datasets import image_paths
from tests import bad_images

LIMIT = 100_000_000


def standard_input(monkeypatch, *lines):
    # Strict UTF-8, as in a UTF-8 locale: decoding other file names would raise.
    stdin = io.TextIOWrapper(io.BytesIO(b"".join(lines)), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdin", stdin)


def test_a_folder_stands_for_its_images_sorted(images):
    (images / "val" / "notes.txt").write_text("x")
    (images / "val" / "gray" / "A.JPG").write_bytes(b"")
    paths = image_paths.expand([str(images / "val")])
    assert len(paths) == 10 and paths == sorted(paths)
    assert str(images / "val" / "gray" / "A.JPG") in paths


def test_hidden_files_and_links_are_those_of_a_data_set(images, tmp_path):
    (images / "val" / "._one.png").write_bytes(b"of macOS")
    (images / "val" / ".hidden").mkdir()
    (images / "val" / ".hidden" / "two.png").write_bytes(b"x")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "val").symlink_to(images / "val")
    assert len(image_paths.expand([str(images / "val")])) == 9
    assert len(image_paths.expand([str(tmp_path / "links")])) == 9


def test_patterns_match_files_only(images):
    paths = image_paths.expand([str(images / "val" / "**")])
    assert len(paths) == 9 and all(os.path.isfile(path) for path in paths)
    assert len(image_paths.expand([str(images / "val" / "*" / "*_01.png")])) == 3


def test_arguments_without_a_file_are_kept(images):
    arguments = [str(images / "none.jpg"), str(images / "none[1].jpg")]
    assert image_paths.expand(arguments) == arguments


def test_a_file_whose_name_is_a_pattern_is_found(images):
    path = images / "a[1].png"
    shutil.copy(next((images / "val" / "white").iterdir()), path)
    assert image_paths.expand([str(path)]) == [str(path)]


def test_standard_input_has_one_path_per_line(monkeypatch):
    standard_input(monkeypatch, b"b.png\r\n", b"\n", b"a b.png\n", b"not_utf8_\xff.png")
    paths = image_paths.expand(["first.png", "-"])
    assert paths == ["first.png", "b.png", "a b.png", os.fsdecode(b"not_utf8_\xff.png")]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_no_paths_are_an_error(arguments, monkeypatch):
    standard_input(monkeypatch)
    with pytest.raises(errors.UsageError, match="expected images"):
        image_paths.expand(arguments)


def test_no_images_in_a_folder_are_an_error(tmp_path):
    with pytest.raises(errors.UsageError, match=f"Received: {tmp_path}"):
        image_paths.expand([str(tmp_path)])


def test_reading_returns_the_content_and_the_problem(tmp_path):
    bad_images.write(tmp_path)
    good, bad = str(tmp_path / "good.jpg"), str(tmp_path / "text.jpg")
    assert image_paths.read(good, LIMIT) == (bad_images.JPEG, "")
    assert image_paths.read(bad, LIMIT)[1] == "is not an image of a known format"
    for name, problem in bad_images.NO_FILES.items():
        encoded, message = image_paths.read(str(tmp_path / name), LIMIT)
        assert encoded == b"" and problem in message


def test_a_name_with_a_null_byte_is_a_problem():
    assert "null byte" in image_paths.read("two\0names", LIMIT)[1]
