import dataclasses
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn import config, errors
from cnnrnn.data.tiny_imagenet_100 import dummy
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import image_check, image_folder, image_index, tfds_builders
from cnnrnn.preprocessing import views as views_lib
from tests import helpers


def load(dataset, **settings):
    lines = []
    data = dataset_lib.load(config.Config.of(dataset=str(dataset), **settings), log=lines.append)
    return data, "\n".join(lines)


def test_split_folders_are_read_as_they_are(images):
    data, _ = load(images)
    assert data.class_names == helpers.CLASSES
    assert len(data.train) == 18 and len(data.validation) == 9
    assert not data.split_here
    assert data.train.describe(0).startswith(str(images / "train" / "black"))


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_validation_may_go_by_its_other_names(images, name):
    first, _ = load(images)
    (images / "val").rename(images / name)
    second, _ = load(images)
    assert second.fingerprint == first.fingerprint


def test_a_single_tree_is_split_by_class_and_seed(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 10)
    data, _ = load(root, validation_fraction=0.2)
    assert data.split_here
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(data.validation.labels).tolist() == [2, 2, 2]
    train, held_out = set(data.train.rows), set(data.validation.rows)
    assert not train & held_out and len(train | held_out) == 30
    again, _ = load(root, validation_fraction=0.2)
    other, _ = load(root, validation_fraction=0.2, split_seed=1)
    assert again.fingerprint == data.fingerprint != other.fingerprint


def test_train_without_validation_is_split_too(images):
    shutil.rmtree(images / "val")
    data, log = load(images)
    assert data.split_here and len(data.validation) == 3
    assert "no validation folder" in log


def test_slices_are_balanced_and_stable(images):
    data, _ = load(images, train_per_class=2, validation_per_class=1)
    assert np.bincount(data.train.labels).tolist() == [2, 2, 2]
    assert np.bincount(data.validation.labels).tolist() == [1, 1, 1]
    same, _ = load(images, train_per_class=2, validation_per_class=1)
    assert same.fingerprint == data.fingerprint
    assert load(images)[0].fingerprint != data.fingerprint


def test_the_fingerprint_sees_content_and_labels_but_not_names(images):
    before, _ = load(images)
    (images / "train" / "black").rename(images / "train" / "a dark one")
    (images / "val" / "black").rename(images / "val" / "a dark one")
    assert load(images)[0].fingerprint == before.fingerprint
    a, b = sorted((images / "train" / "gray").iterdir())[:2]
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    assert load(images)[0].fingerprint != before.fingerprint


def test_facts_are_kept_until_a_file_changes(images, monkeypatch):
    load(images)
    seen = []
    check = image_check.examine
    monkeypatch.setattr(
        image_check, "examine", lambda encoded, limit: seen.append(1) or check(encoded, limit)
    )
    load(images)
    assert not seen
    path = next((images / "val" / "white").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")
    load(images)
    assert len(seen) == 1
    load(images, max_megapixels=50.0)  # another limit, another answer
    assert len(seen) == 1 + 27


def test_a_check_that_was_killed_goes_on_where_it_was(images, monkeypatch):
    check = image_check.examine
    seen = []

    def killed(encoded, limit):
        if len(seen) == 8:
            raise KeyboardInterrupt
        seen.append(1)
        return check(encoded, limit)

    monkeypatch.setattr(image_index, "_BATCH", 4)
    monkeypatch.setattr(image_index.os, "cpu_count", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(image_check, "examine", killed)
        with pytest.raises(KeyboardInterrupt):
            load(images)
    monkeypatch.setattr(
        image_check, "examine", lambda encoded, limit: seen.append(1) or check(encoded, limit)
    )
    load(images)
    assert len(seen) == 27


def test_a_class_that_is_added_renumbers_the_labels(images):
    load(images)
    shutil.copytree(images / "train" / "black", images / "train" / "aaa")
    data, log = load(images)
    assert data.class_names[0] == "aaa"
    assert sorted(set(data.validation.labels)) == [1, 2, 3]
    assert "no images of 1 class(es), e.g. 'aaa'" in log


@pytest.mark.parametrize("layout", ["original", "class folders", "builder"])
def test_all_layouts_of_tiny_imagenet_are_the_same_data(layout, tmp_path, monkeypatch):
    from cnnrnn.data.tiny_imagenet_100 import tiny_imagenet_100_dataset_builder as builder
    from cnnrnn.datasets import tiny_imagenet_folders

    content = dummy.files(list(builder._classes()), 3, 2)
    original = dummy.write_folder(tmp_path / "original", content)
    reference, _ = load(original)
    if layout == "original":
        data, log = load(original)
        assert "original tiny-imagenet layout" in log
    elif layout == "class folders":
        tiny_imagenet_folders.restructure(original, tmp_path / "folders")
        data, _ = load(tmp_path / "folders")
    else:
        monkeypatch.setattr(builder.Builder, "TRAIN_PER_CLASS", 3)
        monkeypatch.setattr(builder.Builder, "VALIDATION_PER_CLASS", 2)
        archive = dummy.write_zip(tmp_path / "tiny-imagenet-100-A.zip", content)
        data, _ = load("tiny_imagenet_100", archive=str(archive))
    assert len(data.train) == 300 and len(data.validation) == 200
    assert data.fingerprint == reference.fingerprint
    first = next(iter(tf.data.Dataset.from_tensors(7).map(data.train.fetch)))
    other = next(iter(tf.data.Dataset.from_tensors(7).map(reference.train.fetch)))
    assert first[0].numpy() == other[0].numpy() and first[1] == other[1]


@pytest.mark.slow
@pytest.mark.skipif(
    not helpers.REAL_ARCHIVE.is_file(), reason=f"{helpers.REAL_ARCHIVE} is not there"
)
def test_the_real_tiny_imagenet_is_the_same_data_in_every_layout(tmp_path):
    from cnnrnn.datasets import tiny_imagenet_folders

    with zipfile.ZipFile(helpers.REAL_ARCHIVE) as archive:
        archive.extractall(tmp_path / "original")
    tiny_imagenet_folders.restructure(helpers.REAL_ARCHIVE, tmp_path / "folders")
    original, _ = load(next((tmp_path / "original").iterdir()))
    folders, _ = load(tmp_path / "folders")
    built, _ = load("tiny_imagenet_100", archive=str(helpers.REAL_ARCHIVE))
    assert len(built.train) == 50_000 and len(built.validation) == 5_000
    assert built.fingerprint == original.fingerprint == folders.fingerprint
    assert built.class_names == original.class_names == folders.class_names


def test_digits_are_all_there():
    data, _ = load("digits")
    assert len(data.train) + len(data.validation) == 1797
    assert data.class_names == tuple("0123456789")
    share = np.bincount(data.validation.labels) / np.bincount(
        np.concatenate([data.train.labels, data.validation.labels])
    )
    assert np.all(np.abs(share - 0.2) < 0.02)


def test_any_image_format_is_listed_and_the_rest_is_counted(images):
    folder = images / "train" / "black"
    image = next(folder.iterdir()).read_bytes()
    for name in ("a.GIF", "b.webp", "c.bmp", "d.tiff", "e.jpeg"):
        (folder / name).write_bytes(image)
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "f.png").write_bytes(image)
    data, log = load(images)
    assert len(data.train) == 18 + 6
    assert "1 file(s)" in log and ".txt" in log


def test_odd_names_are_read(images):
    folder = images / "train" / "black"
    image = next(folder.iterdir()).read_bytes()
    (folder / "two words.png").write_bytes(image)
    (folder / "été\n.png").write_bytes(image)
    try:
        pathlib.Path(str(folder).encode().decode() + "/\udcff.png").write_bytes(image)
        more = 3
    except (OSError, UnicodeError):  # a file system that takes UTF-8 only
        more = 2
    data, _ = load(images)
    assert len(data.train) == 18 + more


def empty_class(root):
    (root / "train" / "none").mkdir()


def one_class(root):
    for name in ("gray", "white"):
        shutil.rmtree(root / "train" / name)


def unknown_in_val(root):
    (root / "val" / "black").rename(root / "val" / "green")


def empty_val(root):
    for folder in (root / "val").iterdir():
        for path in folder.iterdir():
            path.unlink()


def no_classes(root):
    for split in ("train", "val"):
        shutil.rmtree(root / split)


def loose_images(root):
    shutil.copy(next((root / "train" / "gray").iterdir()), root / "1.png")
    for split in ("train", "val"):
        shutil.rmtree(root / split)


def empty_image(root):
    (root / "val" / "gray" / "nothing.jpg").write_bytes(b"")


@pytest.mark.parametrize(
    "damage, message",
    [
        (empty_class, "none holds no images"),
        (one_class, "only 'black'"),
        (unknown_in_val, "'green' that the training folder lacks"),
        (empty_val, "holds no images"),
        (no_classes, "has no folders in it"),
        (loose_images, "has no folders in it"),
        (empty_image, "1 of 28 images cannot be trained on: .*nothing.jpg .* is empty"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_by_name(images, damage, message):
    damage(images)
    with pytest.raises(errors.UsageError, match=message):
        load(images)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 2)
    next((root / "gray").iterdir()).unlink()
    with pytest.raises(errors.UsageError, match="'gray' has one image"):
        load(root)


@pytest.mark.parametrize(
    "dataset, message",
    [
        ("/no/such/folder", "neither a folder here nor a known data set"),
        ("digit", "neither a folder here nor a known data set"),
        ("tfds:no_such_set", "no_such_set"),
        ("tfds:glue", "no image classification set"),
    ],
)
def test_an_unknown_data_set_is_refused(dataset, message, monkeypatch):
    monkeypatch.setattr(tfds_builders, "_prepared", lambda builder, *_: builder)
    with pytest.raises(errors.UsageError, match=message):
        load(dataset)


class PlainShapes(tfds.core.GeneratorBasedBuilder):
    """A set as TFDS has many: shuffled by key, a test split, no file names. Value tells label."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 3)), "label": ["dark", "light"]}
        features["label"] = tfds.features.ClassLabel(names=features["label"])
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.full((4, 4, 3), 100 * (i % 2) + i, np.uint8)
            yield f"key{i}", {"image": image, "label": i % 2}


def test_a_set_of_tfds_is_read_by_row(tmp_path):
    data, _ = load("tfds:plain_shapes", data_dir=str(tmp_path))
    assert data.class_names == ("dark", "light") and not data.split_here
    assert len(data.train) == 20 and len(data.validation) == 6
    rows = tf.data.Dataset.from_tensor_slices(np.arange(20)[::-1])
    for encoded, label, row in rows.map(lambda row: (*data.train.fetch(row), row)):
        value = int(views_lib.decode(encoded)[0, 0, 0])
        assert label == data.train.labels[row] == int(value >= 100)
    assert "split 'train' of plain_shapes/1.0.0" in data.train.describe(3)
    again, log = load("tfds:plain_shapes", data_dir=str(tmp_path))
    assert again.fingerprint == data.fingerprint and "preparing" not in log


def test_a_set_prepared_in_another_format_is_refused(tmp_path):
    PlainShapes(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    with pytest.raises(errors.UsageError, match="--data_dir"):
        load("tfds:plain_shapes", data_dir=str(tmp_path))


@pytest.fixture
def offline(monkeypatch):
    def unreachable(url, **_):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "head", unreachable)


def test_offline_says_what_to_fetch_and_where_to_put_it(offline, tmp_path):
    with pytest.raises(errors.RunError, match="(?s)beans.*downloads/manual.*test.zip.*train.zip"):
        load("tfds:beans", data_dir=str(tmp_path))


def test_files_put_by_hand_need_no_network(offline, tmp_path):
    builder = tfds.builder("beans", data_dir=tmp_path, file_format="array_record")
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    for info in builder.url_infos.values():
        (manual / info.filename).write_bytes(b"")
    tfds_builders.check_reachable(builder, "tfds:beans", manual)


def test_folder_builder_is_a_tfds_builder(images):
    builder = image_folder.build(images, log=lambda line: None)
    assert isinstance(builder, tfds.core.DatasetBuilder)
    assert builder.info.splits["train"].num_examples == 18
    assert builder.info.features["label"].names == list(helpers.CLASSES)
    examples = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert [example["label"] for example in examples] == [0] * 6 + [1] * 6 + [2] * 6
    assert examples[0]["image"].shape == (9, 7, 3)


def test_split_folders_may_be_in_capitals(images):
    reference, _ = load(images)
    (images / "train").rename(images / "Train")
    (images / "val").rename(images / "Test")
    assert load(images)[0].fingerprint == reference.fingerprint


def test_a_class_may_be_called_train(tmp_path):
    root = helpers.write_classes(tmp_path / "vehicles", 5)
    (root / "gray").rename(root / "train")
    data, _ = load(root)
    assert data.class_names == ("black", "train", "white")


def test_unlabelled_images_beside_train_are_no_validation(images):
    (images / "val").rename(images / "elsewhere")
    (images / "test").mkdir()
    image = next((images / "train" / "black").iterdir())
    shutil.copy(image, images / "test" / "1.png")
    data, log = load(images)
    assert data.split_here and len(data.class_names) == 3
    assert "test has no class folders and is passed over" in log


def test_links_are_followed_but_not_in_circles(images):
    folder = images / "train" / "black"
    (folder / "more").symlink_to(images / "val" / "black")
    (folder / "round").symlink_to(folder)
    assert len(load(images)[0].train) == 18 + 3
    (folder / "broken.png").symlink_to(images / "nowhere.png")
    with pytest.raises(
        errors.UsageError, match=r"broken.png \(class 'black'\) cannot be read \(No such file"
    ):
        load(images)


def test_a_class_name_that_is_not_utf8_can_be_written(images):
    for split in ("train", "val"):
        try:
            (images / split / "white").rename(images / split / "w\udcffhite")
        except (OSError, UnicodeError):
            pytest.skip("a file system that takes UTF-8 only")
    data, _ = load(images)
    assert data.class_names[2].encode() == "w\ufffdhite".encode()


def test_a_validation_split_without_labels_is_none(images, monkeypatch):
    whole = dataset_lib.examine

    def unlabelled(*arguments):
        found = whole(*arguments)
        return dataclasses.replace(found, validation=found.validation.take(np.arange(0)))

    monkeypatch.setattr(dataset_lib, "examine", unlabelled)
    data, _ = load(images, validation_per_class=1)
    assert data.split_here and len(data.validation) == 3


def test_a_declared_class_without_images_is_noted(images, monkeypatch):
    found = image_folder.build(images, log=lambda line: None)
    splits = {name: found.examples(name) for name in ("train", "validation")}
    builder = image_folder.FolderBuilder(images, splits, [*helpers.CLASSES, "unused"])
    monkeypatch.setattr(image_folder, "build", lambda *_: builder)
    data, log = load(images)
    assert len(data.class_names) == 4 and "e.g. 'unused'" in log


@pytest.mark.parametrize("content", [b"", b"no database at all" * 500])
def test_a_damaged_index_is_written_anew(images, content):
    reference, _ = load(images)
    kept = config.cache_dir() / "images.sqlite"
    kept.write_bytes(content)
    for _ in range(2):
        assert load(images)[0].fingerprint == reference.fingerprint
    assert kept.stat().st_size > 4096


def test_bad_images_stop_the_start_or_are_left_out(images):
    whole, _ = load(images)
    broken = [next((images / split / "gray").iterdir()) for split in ("train", "val")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(errors.UsageError, match="2 of 27 images cannot be trained on") as raised:
        load(images)
    assert all(str(path) in str(raised.value) for path in broken)
    assert "--bad_images=skip" in str(raised.value)
    data, log = load(images, bad_images="skip")
    assert (len(data.train), len(data.validation)) == (17, 8) and "2 of 27 images" in log
    assert data.fingerprint != whole.fingerprint
