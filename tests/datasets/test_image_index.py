"""Each image is checked once, until it changes; a damaged index is created again."""

import contextlib
import errno
import os
import sqlite3

import PIL
import pytest

from cnnrnn import config as config_lib
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import example_source, image_check, image_index
from cnnrnn.settings import paths


def load(images, **settings):
    return dataset_lib.load(config_lib.Config.of(dataset=str(images), **settings))


@pytest.fixture
def checked(monkeypatch):
    """Gets an entry for each image that is checked."""
    entries = []
    check = image_check.examine
    monkeypatch.setattr(
        image_check, "examine", lambda encoded, limit: entries.append(1) or check(encoded, limit)
    )
    return entries


def test_images_are_checked_again_only_if_they_change(images, checked, monkeypatch):
    load(images)
    assert len(checked) == 27
    checked.clear()
    load(images)
    assert not checked
    path = next((images / "val" / "white").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")
    load(images)
    assert len(checked) == 1
    load(images, max_megapixels=50.0)  # another limit may give another result
    assert len(checked) == 1 + 27
    monkeypatch.setattr(PIL, "__version__", "99.0")  # and so may another version
    load(images, max_megapixels=50.0)
    assert len(checked) == 1 + 27 + 27


def test_an_image_that_is_replaced_by_one_of_the_same_size_and_time_is_checked(images, checked):
    path = next((images / "val" / "white").iterdir())
    before = path.stat()
    load(images)
    checked.clear()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and `rsync -t` do
    data = dataset_lib.examine(config_lib.Config.of(dataset=str(images)))
    assert len(checked) == 1 and sum(bool(info.problem) for info in data.validation.infos) == 1


def test_an_image_that_could_not_be_read_is_read_again(images, monkeypatch):
    """A disk that recovers does not change a file's size or times."""

    def fails(path):
        raise OSError(errno.EIO, "Input/output error")

    config = config_lib.Config.of(dataset=str(images))
    with monkeypatch.context() as patch:
        patch.setattr(example_source, "read_file", fails)
        data = dataset_lib.examine(config)
    assert {info.problem for info in data.train.infos} == {"cannot be read (Input/output error)"}
    assert not any(info.problem for info in dataset_lib.examine(config).train.infos)


def test_a_killed_check_resumes(images, checked, monkeypatch):
    check = image_check.examine

    def killed(encoded, limit):
        if len(checked) == 8:
            raise KeyboardInterrupt
        return check(encoded, limit)

    monkeypatch.setattr(image_index, "_BATCH", 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(image_check, "examine", killed)
        with pytest.raises(KeyboardInterrupt):
            load(images)
    load(images)
    assert len(checked) == 27


@pytest.mark.parametrize("content", [b"", b"not a database" * 500])
def test_a_damaged_index_is_created_again(images, content, capsys):
    reference = load(images)
    index = paths.cache_dir() / "images.sqlite"
    index.write_bytes(content)
    for _ in range(2):
        assert load(images).fingerprint == reference.fingerprint
    assert index.stat().st_size > 4096
    out = capsys.readouterr().out
    assert out.count("warning: cannot use earlier checks") == bool(content)


def test_a_damaged_entry_is_checked_again(images, checked):
    load(images)
    checked.clear()
    index = paths.cache_dir() / "images.sqlite"
    with contextlib.closing(sqlite3.connect(index)) as database, database:
        for info in ("{", '["a"]', '{"no": 1}'):
            database.execute(
                "UPDATE info SET info = ? WHERE name = (SELECT name FROM info WHERE info LIKE ?)",
                (info, '{"sha256%'),
            )
    load(images)
    assert len(checked) == 3
    load(images)
    assert len(checked) == 3


def test_missing_and_unreadable_files_are_reported(images):
    folder = images / "train" / "black"
    (folder / "broken.png").symlink_to(images / "nowhere.png")
    (folder / "empty.jpg").write_bytes(b"")
    data = dataset_lib.examine(config_lib.Config.of(dataset=str(images)))
    problems = [info.problem for info in data.train.infos if info.problem]
    assert problems == ["cannot be read (No such file or directory)", "is empty"]
