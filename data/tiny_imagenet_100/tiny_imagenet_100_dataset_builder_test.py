"""Tests of the tiny-imagenet-100 data set."""

import functools
import http.server
import os
import pathlib
import pickle
import tempfile
import threading
import time
import urllib.error
import zipfile
from unittest import mock

import pytest
import tensorflow_datasets as tfds

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import dummy, tiny_imagenet_100_dataset_builder

Builder = tiny_imagenet_100_dataset_builder.Builder
WNIDS = [
    line.split("\t")[0]
    for line in pathlib.Path(__file__).with_name("classes.tsv").read_text().splitlines()
]
REAL_ARCHIVE = pathlib.Path(
    os.environ.get("CNNRNN_TINY_IMAGENET_ZIP")
    or pathlib.Path(__file__).resolve().parents[3] / "shared/datasets/tiny-imagenet-100-A.zip"
)


class TinyImagenet100Test(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks of a data set, on a small archive in the manual folder."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 200, "validation": 100}

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.EXAMPLE_DIR = folder.name
        dummy.write_zip(
            pathlib.Path(folder.name, "tiny-imagenet-100-A.zip"), dummy.files(WNIDS[::-1])
        )
        for name, count in (("TRAIN_PER_CLASS", 2), ("VALIDATION_PER_CLASS", 1)):
            patch = mock.patch.object(Builder, name, count)
            patch.start()
            cls.addClassCleanup(patch.stop)
        super().setUpClass()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the builder expect a small archive."""
    monkeypatch.setattr(Builder, "TRAIN_PER_CLASS", 2)
    monkeypatch.setattr(Builder, "VALIDATION_PER_CLASS", 1)


def _prepare(tmp_path: pathlib.Path, **kwargs) -> tfds.core.DatasetBuilder:
    builder = Builder(data_dir=str(tmp_path / "data"), file_format="array_record", **kwargs)
    builder.download_and_prepare()
    return builder


def _read(builder: tfds.core.DatasetBuilder, split: str) -> list[dict]:
    decoders = {"image": tfds.decode.SkipDecoding()}
    return list(builder.as_data_source(split=split, decoders=decoders))


def test_images_are_stored_byte_for_byte_in_canonical_order(small, tmp_path):
    # Neither the class ids nor the validation images are in the order of the labels.
    content = dummy.files(WNIDS[::-1])
    archive = dummy.write_zip(tmp_path / "any-name.zip", content)
    builder = _prepare(tmp_path, archive=archive)

    train = _read(builder, "train")
    expected = sorted(name for name in content if "/images/n" in name)
    assert [example["filename"].decode() for example in train] == [
        name.rpartition("/")[2] for name in expected
    ]
    assert [example["image"] for example in train] == [content[name] for name in expected]
    assert [int(example["label"]) for example in train] == [i // 2 for i in range(200)]

    validation = _read(builder, "validation")
    assert [int(example["label"]) for example in validation] == list(range(100))
    # The validation images are numbered in the order of wnids.txt, which is reversed.
    assert [example["filename"].decode() for example in validation] == [
        f"val_{99 - label}.JPEG" for label in range(100)
    ]
    for example in validation:
        assert example["image"] == content["val/images/" + example["filename"].decode()]


def test_the_hundred_classes_are_selected_from_a_larger_archive(small, tmp_path):
    content = dummy.files([*WNIDS, "n99999999", "n00000001"])
    archive = dummy.write_zip(tmp_path / "larger.zip", content, top="tiny-imagenet-200")
    builder = _prepare(tmp_path, archive=archive)
    assert builder.info.splits["train"].num_examples == 200
    assert builder.info.splits["validation"].num_examples == 100
    assert b"n99999999_0.JPEG" not in [example["filename"] for example in _read(builder, "train")]


def test_class_names_are_in_the_order_of_the_ids(tmp_path):
    names = Builder(data_dir=str(tmp_path)).info.features["label"].names
    assert len(names) == 100
    assert names[0] == "goldfish, Carassius auratus"
    assert names[99] == "seashore, coast, seacoast, sea-coast"


def test_an_archive_without_one_of_the_classes_is_refused(small, tmp_path):
    archive = dummy.write_zip(tmp_path / "a.zip", dummy.files([*WNIDS[1:], "n99999999"]))
    with pytest.raises(errors.UsageError, match=WNIDS[0]):
        _prepare(tmp_path, archive=archive)


def test_an_archive_with_too_few_images_is_refused(small, tmp_path):
    content = dummy.files(WNIDS)
    del content[f"train/{WNIDS[7]}/images/{WNIDS[7]}_0.JPEG"]
    archive = dummy.write_zip(tmp_path / "a.zip", content)
    with pytest.raises(errors.UsageError, match=f"{WNIDS[7]} has 1 training .* has 2"):
        _prepare(tmp_path, archive=archive)


def test_a_damaged_image_stops_the_build_and_leaves_nothing(small, tmp_path):
    content = dummy.files(WNIDS)
    archive = dummy.write_zip(tmp_path / "a.zip", content)
    name = f"{WNIDS[50]}_1.JPEG"
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo(f"{dummy.TOP}/train/{WNIDS[50]}/images/{name}")
    data = bytearray(archive.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + 20] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(errors.RunError, match=name):
        _prepare(tmp_path, archive=archive)
    builder = Builder(data_dir=str(tmp_path / "data"), file_format="array_record")
    assert not builder.is_prepared()


def test_a_missing_archive_is_reported_with_the_flag(tmp_path):
    with pytest.raises(errors.UsageError, match="--archive=nowhere.zip"):
        _prepare(tmp_path, archive="nowhere.zip")


def test_the_archive_survives_pickling(tmp_path):
    builder = Builder(data_dir=str(tmp_path), archive="some.zip")
    assert pickle.loads(pickle.dumps(builder))._archive == pathlib.Path("some.zip")


def test_without_a_network_it_fails_at_once_and_names_the_files(tmp_path, monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.URLError(f"no route to {request.host}")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    started = time.monotonic()
    with pytest.raises(errors.RunError) as caught:
        _prepare(tmp_path)
    assert time.monotonic() - started < 10
    for part in ("tiny-imagenet-100-A.zip", "tiny-imagenet-200.zip", "no route", "--archive=PATH"):
        assert part in str(caught.value)


def test_the_second_url_is_tried_if_the_first_fails(small, tmp_path, monkeypatch):
    archive = dummy.write_zip(tmp_path / "a.zip", dummy.files(WNIDS), top="tiny-imagenet-200")

    def answer(request, timeout):
        if request.full_url.endswith("100-A.zip"):
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", {}, None)
        return mock.MagicMock()

    fetched = []

    def download(self, url):
        fetched.append(url)
        return archive

    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    builder = _prepare(tmp_path)
    assert fetched == ["http://cs231n.stanford.edu/tiny-imagenet-200.zip"]
    assert builder.info.splits["train"].num_examples == 200


def test_a_downloaded_archive_needs_no_network(small, tmp_path, monkeypatch):
    dummy.write_zip(tmp_path / "www/a.zip", dummy.files(WNIDS))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    downloads = str(tmp_path / "downloads")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        urls = (f"http://127.0.0.1:{server.server_port}/a.zip",)
        monkeypatch.setattr(tiny_imagenet_100_dataset_builder, "_URLS", urls)
        Builder(data_dir=str(tmp_path / "one")).download_and_prepare(download_dir=downloads)
        server.shutdown()
        thread.join()
    builder = Builder(data_dir=str(tmp_path / "two"))
    builder.download_and_prepare(download_dir=downloads)
    assert builder.info.splits["train"].num_examples == 200


@pytest.mark.slow
@pytest.mark.skipif(not REAL_ARCHIVE.is_file(), reason=f"{REAL_ARCHIVE} does not exist")
def test_the_real_archive(tmp_path):
    started = time.monotonic()
    builder = _prepare(tmp_path, archive=REAL_ARCHIVE)
    print(f"prepared in {time.monotonic() - started:.0f} s")
    assert builder.info.splits["train"].num_examples == 50_000
    assert builder.info.splits["validation"].num_examples == 5_000
    with zipfile.ZipFile(REAL_ARCHIVE) as archive:
        annotations = archive.read(f"{dummy.TOP}/val/val_annotations.txt").decode()
        wnid_of = dict(line.split("\t")[:2] for line in annotations.splitlines())
        for split in ("train", "validation"):
            previous = (-1, "")
            for index, example in enumerate(_read(builder, split)):
                name, label = example["filename"].decode(), int(example["label"])
                assert (label, name) > previous
                previous = (label, name)
                wnid = name.split("_")[0] if split == "train" else wnid_of[name]
                assert WNIDS[label] == wnid
                if index % 500 == 0:
                    folder = f"train/{wnid}" if split == "train" else "val"
                    member = f"{dummy.TOP}/{folder}/images/{name}"
                    assert example["image"] == archive.read(member)


if __name__ == "__main__":
    tfds.testing.test_main()
