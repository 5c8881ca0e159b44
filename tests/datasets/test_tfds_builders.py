"""Data sets of TFDS: random access, storage formats, and downloads without a network."""

import errno
import fcntl
import os
import pathlib
import types

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import example_source, tfds_builders
from cnnrnn.preprocessing import views as views_lib
from tests import helpers


def load(dataset, **settings):
    return dataset_lib.load(config_lib.Config.of(dataset=dataset, **settings))


class PlainShapes(tfds.core.GeneratorBasedBuilder):
    """Shuffled by key, with a test split and without file names, as many TFDS data sets are.

    The label is encoded in the pixel values.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "label": tfds.features.ClassLabel(names=["dark", "light"]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.full((4, 4, 3), 100 * (i % 2) + i, np.uint8)
            yield f"key{i}", {"image": image, "label": i % 2}


def test_a_tfds_data_set_is_read_by_index(tmp_path, capsys):
    data = load("tfds:plain_shapes", data_dir=str(tmp_path))
    assert data.class_names == ("dark", "light") and not data.split_here
    assert len(data.train) == 20 and len(data.validation) == 6
    indices = tf.data.Dataset.from_tensor_slices(np.arange(20)[::-1])
    for encoded, label, index in indices.map(lambda index: (*data.train.fetch(index), index)):
        value = int(views_lib.decode(encoded)[0, 0, 0])
        assert label == data.train.labels[index] == int(value >= 100)
    assert "split 'train' of plain_shapes/1.0.0" in data.train.describe(3)
    assert data.train.path(3) == ""
    assert "preparing tfds:plain_shapes" in capsys.readouterr().out
    again = load("tfds:plain_shapes", data_dir=str(tmp_path))
    assert again.fingerprint == data.fingerprint
    assert "preparing" not in capsys.readouterr().out


def test_what_identifies_an_example_is_short_however_many_files_there_are(tmp_path):
    load("tfds:plain_shapes", data_dir=str(tmp_path))
    builder = tfds.builder("plain_shapes", data_dir=str(tmp_path))
    source = example_source.RecordSource(builder, "train", "image", "label")

    def stamp():
        (found,) = {found for _, found in source.identities()}
        return found

    stamps = [stamp()]
    for number in range(100):
        (pathlib.Path(builder.data_dir) / f"shard{number}").touch()
    stamps.append(stamp())
    (pathlib.Path(builder.data_dir) / "shard7").write_text("x")
    stamps.append(stamp())
    assert len(set(stamps)) == 3 and max(map(len, stamps)) < 100


def test_a_data_set_that_another_process_prepares_is_waited_for(tmp_path, monkeypatch, capsys):
    def flock(file, operation):
        if operation & fcntl.LOCK_NB:
            raise BlockingIOError
        PlainShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        data = load("tfds:plain_shapes", data_dir=str(tmp_path))
    out = capsys.readouterr().out
    assert "waiting for another process that prepares tfds:plain_shapes" in out
    assert "preparing tfds:plain_shapes" not in out
    assert data.fingerprint == load("tfds:plain_shapes", data_dir=str(tmp_path)).fingerprint


def test_a_data_set_is_prepared_by_one_process_at_a_time(tmp_path):
    locked = []

    class Slow(PlainShapes):
        name = "slow"

        def _generate_examples(self, count):
            with open(tmp_path / ".slow.lock") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    locked.append(count)
            yield from super()._generate_examples(count)

    load("tfds:slow", data_dir=str(tmp_path))
    assert locked == [20, 6]


def test_a_data_set_is_prepared_where_locks_are_not_supported(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert len(load("tfds:plain_shapes", data_dir=str(tmp_path)).train) == 20


def test_of_test_images_the_test_split_is_evaluated(tmp_path, capsys):
    class Splits(PlainShapes):
        name = "splits"

        def _split_generators(self, dl_manager):
            names = ("train", "validation", "test")
            return {name: self._generate_examples(6 + len(name)) for name in names}

    settings = {"dataset": "tfds:splits", "data_dir": str(tmp_path)}
    config = config_lib.Config.of(**settings, test_dataset="tfds:splits")
    trained = dataset_lib.load(config)
    assert len(trained.validation) == 16
    assert len(dataset_lib.load_test(config, trained).validation) == 10
    assert "tfds:splits: its split 'test' is evaluated" in capsys.readouterr().out


def test_test_images_need_no_training_split(tmp_path, capsys):
    class OnlyTest(PlainShapes):
        name = "only_test"

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples(9)}

    settings = {"dataset": "tfds:plain_shapes", "data_dir": str(tmp_path)}
    config = config_lib.Config.of(**settings, test_dataset="tfds:only_test")
    assert len(dataset_lib.load_test(config, dataset_lib.load(config)).validation) == 9
    with pytest.raises(errors.UsageError, match="has no split 'train'. Its splits are test"):
        dataset_lib.load(config.replace(dataset="tfds:only_test", test_dataset=""))


@pytest.mark.parametrize(
    "name, damage",
    [
        ("plain_shapes-train.array_record-00000-of-00001", lambda content: content[:70_000]),
        ("plain_shapes-test.array_record-00000-of-00001", None),
        ("dataset_info.json", lambda content: content[:100]),
        ("dataset_info.json", None),
    ],
)
def test_a_damaged_data_set_is_named(tmp_path, name, damage):
    PlainShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    (path,) = tmp_path.rglob(name)
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(content))
    with pytest.raises(errors.RunError, match=f"{tmp_path}/plain_shapes.* is damaged .*: remove"):
        load("tfds:plain_shapes", data_dir=str(tmp_path))
    with pytest.raises(errors.RunError, match=f"{tmp_path}/plain_shapes(/1.0.0)? is damaged"):
        load("tfds:plain_shapes:1.0.0", data_dir=str(tmp_path))


def test_a_folder_named_like_a_built_in_data_set_is_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds_builders, "_prepared", lambda builder, *_: builder)
    helpers.write_classes(tmp_path / "digits", 1)
    for name, noted in (("digits", True), ("./digits", False)):
        tfds_builders.build(config_lib.Config.of(dataset=name), None, False)
        out = capsys.readouterr().out
        assert ("note: digits is built in. To read the folder" in out) == noted


def test_class_names_that_look_the_same_are_noted(tmp_path, capsys):
    root = helpers.write_classes(tmp_path / "tree", 10)
    (root / "gray").rename(root / "été")
    (root / "white").rename(root / "Été")
    load(str(root))
    out = capsys.readouterr().out
    assert "note: 1 class name(s) differ only in letter case" in out and "'été'" in out


def test_a_data_set_prepared_without_random_access_is_refused(tmp_path):
    PlainShapes(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    with pytest.raises(errors.UsageError, match="--data_dir"):
        load("tfds:plain_shapes", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "dataset, message",
    [
        ("tfds:no_such_set", "no_such_set"),
        ("tfds:glue", "not an image classification data set"),
        ("tfds:plain_shapes:9.9.9", "cannot be loaded at version 9.9.9"),
        ("tfds:mnist/x=1", "mnist"),
    ],
)
def test_an_unusable_tfds_data_set_is_refused(dataset, message, monkeypatch):
    monkeypatch.setattr(tfds_builders, "_prepared", lambda builder, *_: builder)
    with pytest.raises(errors.UsageError, match=message):
        load(dataset)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_named_with_the_flag(tmp_path, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(PlainShapes, "download_and_prepare", refused)
    message = f"cannot prepare .* in {tmp_path} .*another folder by --data_dir or CNNRNN_CACHE"
    with pytest.raises(errors.RunError, match=message):
        load("tfds:plain_shapes", data_dir=str(tmp_path))


@pytest.fixture
def offline(monkeypatch):
    def unreachable(url, **_):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "head", unreachable)


def test_offline_the_message_lists_the_files_to_fetch_and_their_folder(offline, tmp_path):
    with pytest.raises(errors.RunError, match="(?s)beans.*downloads/manual.*test.zip.*train.zip"):
        load("tfds:beans", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "name, files",
    [
        ("beans", ["train.zip", "validation.zip", "test.zip"]),
        # Its list of URLs has no names of files.
        ("imagenet2012", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"]),
    ],
)
def test_files_in_the_manual_folder_need_no_network(offline, tmp_path, name, files):
    builder = tfds.builder(name, data_dir=tmp_path, file_format="array_record")
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    for file in files:
        with pytest.raises(errors.RunError, match=file):
            tfds_builders.check_reachable(builder, name, manual)
        (manual / file).write_bytes(b"")
    tfds_builders.check_reachable(builder, name, manual)


def test_one_host_that_responds_is_enough(tmp_path, monkeypatch):
    tried = []

    def head(url, **_):
        tried.append(url)
        if "old" in url:
            raise requests.ConnectionError("blocked")

    monkeypatch.setattr(requests, "head", head)
    info = types.SimpleNamespace(filename=None)
    urls = dict.fromkeys(["https://old.example/a.zip", "https://new.example/a.zip"], info)
    builder = types.SimpleNamespace(url_infos=urls, MANUAL_DOWNLOAD_INSTRUCTIONS=None)
    tfds_builders.check_reachable(builder, "tfds:moved", tmp_path)
    assert len(tried) == 2
