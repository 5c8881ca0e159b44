"""Splits, slices, fingerprints and bad images of a data set."""

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import types
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import dummy, tiny_imagenet_100_dataset_builder
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import example_source, image_folder, tiny_imagenet_folders
from cnnrnn.settings import paths
from tests import helpers


def load(dataset, **settings):
    return dataset_lib.load(config_lib.Config.of(dataset=str(dataset), **settings))


def damage(*folders):
    """Makes every image in some folders unreadable."""
    for folder in folders:
        for path in folder.rglob("*.png"):
            path.write_bytes(path.read_bytes()[:60])


def test_a_validation_folder_is_the_validation_split(images):
    data = load(images)
    assert data.class_names == helpers.CLASSES
    assert len(data.train) == 18 and len(data.validation) == 9
    assert not data.split_here
    assert data.train.describe(0).startswith(str(images / "train" / "black"))


def test_a_single_tree_is_split_by_class_and_seed(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 10)
    data = load(root, validation_fraction=0.2)
    assert data.split_here
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(data.validation.labels).tolist() == [2, 2, 2]
    train, held_out = set(data.train.indices), set(data.validation.indices)
    assert not train & held_out and len(train | held_out) == 30
    again = load(root, validation_fraction=0.2)
    other = load(root, validation_fraction=0.2, split_seed=1)
    assert again.fingerprint == data.fingerprint != other.fingerprint


def test_train_without_validation_is_split(images, capsys):
    shutil.rmtree(images / "val")
    data = load(images)
    assert data.split_here and len(data.validation) == 3
    assert "no validation folder" in capsys.readouterr().out


def test_slices_are_balanced_and_reproducible(images):
    data = load(images, train_per_class=2, validation_per_class=1)
    assert np.bincount(data.train.labels).tolist() == [2, 2, 2]
    assert np.bincount(data.validation.labels).tolist() == [1, 1, 1]
    same = load(images, train_per_class=2, validation_per_class=1)
    assert same.fingerprint == data.fingerprint
    assert load(images).fingerprint != data.fingerprint


def test_the_fingerprint_depends_on_content_and_labels_but_not_on_names(images):
    before = load(images)
    (images / "train" / "black").rename(images / "train" / "a dark one")
    (images / "val" / "black").rename(images / "val" / "a dark one")
    assert load(images).fingerprint == before.fingerprint
    a, b = sorted((images / "train" / "gray").iterdir())[:2]
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    assert load(images).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    "layout", ["original", pytest.param("class folders", marks=pytest.mark.thorough), "builder"]
)
def test_all_layouts_of_tiny_imagenet_are_the_same_data_set(layout, tmp_path, monkeypatch, capsys):
    builder = tiny_imagenet_100_dataset_builder
    content = dummy.files(list(builder._classes()), 3, 2)
    original = dummy.write_folder(tmp_path / "original", content)
    reference = load(original)
    if layout == "original":
        data = load(original)
        assert "original tiny-imagenet layout" in capsys.readouterr().out
    elif layout == "class folders":
        tiny_imagenet_folders.restructure(original, tmp_path / "folders")
        data = load(tmp_path / "folders")
    else:
        monkeypatch.setattr(builder.Builder, "TRAIN_PER_CLASS", 3)
        monkeypatch.setattr(builder.Builder, "VALIDATION_PER_CLASS", 2)
        archive = dummy.write_zip(tmp_path / "tiny-imagenet-100-A.zip", content)
        data = load("tiny_imagenet_100", archive=str(archive))
    assert len(data.train) == 300 and len(data.validation) == 200
    assert data.fingerprint == reference.fingerprint
    first = next(iter(tf.data.Dataset.from_tensors(7).map(data.train.fetch)))
    other = next(iter(tf.data.Dataset.from_tensors(7).map(reference.train.fetch)))
    assert first[0].numpy() == other[0].numpy() and first[1] == other[1]


@pytest.mark.slow
@pytest.mark.skipif(
    not helpers.REAL_ARCHIVE.is_file(), reason=f"{helpers.REAL_ARCHIVE} does not exist"
)
def test_all_layouts_of_the_real_tiny_imagenet_are_the_same_data_set(tmp_path):
    with zipfile.ZipFile(helpers.REAL_ARCHIVE) as archive:
        archive.extractall(tmp_path / "original")
    tiny_imagenet_folders.restructure(helpers.REAL_ARCHIVE, tmp_path / "folders")
    original = load(next((tmp_path / "original").iterdir()))
    folders = load(tmp_path / "folders")
    built = load("tiny_imagenet_100", archive=str(helpers.REAL_ARCHIVE))
    assert len(built.train) == 50_000 and len(built.validation) == 5_000
    assert built.fingerprint == original.fingerprint == folders.fingerprint
    assert built.class_names == original.class_names == folders.class_names


@pytest.mark.slow  # the builder: data/digits/digits_dataset_builder_test.py
def test_digits_are_complete():
    data = load("digits")
    assert len(data.train) + len(data.validation) == 1797
    assert data.class_names == tuple("0123456789")
    share = np.bincount(data.validation.labels) / np.bincount(
        np.concatenate([data.train.labels, data.validation.labels])
    )
    assert np.all(np.abs(share - 0.2) < 0.02)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 2)
    next((root / "gray").iterdir()).unlink()
    with pytest.raises(errors.UsageError, match="'gray' has one image"):
        load(root)


def without_labels(split, examine=dataset_lib.image_index.examine):
    """A stand-in for the index that knows no labels of one split."""

    def examine_unlabelled(source, name, max_pixels):
        labels, infos = examine(source, name, max_pixels)
        return (np.full_like(labels, -1) if f"({split})" in name else labels), infos

    return examine_unlabelled


@pytest.mark.parametrize("with_a_bad_image", [False, True])
def test_a_validation_split_without_labels_is_ignored(images, monkeypatch, with_a_bad_image):
    monkeypatch.setattr(dataset_lib.image_index, "examine", without_labels("validation"))
    if with_a_bad_image:
        next((images / "val" / "gray").iterdir()).write_bytes(b"")
    data = load(images, validation_per_class=1)
    assert data.split_here and len(data.validation) == 3


def test_a_training_split_without_labels_is_an_error(images, monkeypatch):
    monkeypatch.setattr(dataset_lib.image_index, "examine", without_labels("train"))
    with pytest.raises(errors.UsageError, match="no labelled training images"):
        load(images)


def test_a_declared_class_without_images_is_reported(images, monkeypatch, capsys):
    folder = image_folder.build([images])
    splits = {name: folder.examples(name) for name in ("train", "validation")}
    builder = image_folder.FolderBuilder(images, splits, [*helpers.CLASSES, "unused"])
    monkeypatch.setattr(image_folder, "build", lambda *_: builder)
    data = load(images)
    assert len(data.class_names) == 4 and "e.g. 'unused'" in capsys.readouterr().out


def test_bad_images_are_an_error_or_skipped(images, capsys):
    complete = load(images)
    broken = [next((images / split / "gray").iterdir()) for split in ("train", "val")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(errors.UsageError, match="2 of 27 images cannot be used") as raised:
        load(images)
    assert all(str(path) in str(raised.value) for path in broken)
    assert "--bad_images=skip" in str(raised.value)
    data = load(images, bad_images="skip")
    assert (len(data.train), len(data.validation)) == (17, 8)
    assert "warning: 2 of 27 images" in capsys.readouterr().out
    assert data.fingerprint != complete.fingerprint


def test_files_that_cannot_be_read_are_refused_with_path_class_and_reason(images):
    broken, empty = images / "train" / "black" / "broken.png", images / "val" / "gray" / "empty.jpg"
    broken.symlink_to(images / "nowhere.png")
    empty.write_bytes(b"")
    with pytest.raises(errors.UsageError, match="2 of 29 images cannot be used") as raised:
        load(images)
    message = str(raised.value)
    assert f"{broken} (class 'black') cannot be read (No such file or directory)" in message
    assert f"{empty} (class 'gray') is empty" in message


def test_skipping_all_validation_images_does_not_split_the_training_images(images):
    damage(images / "val")
    with pytest.raises(errors.UsageError, match="all 9 validation images are unusable"):
        load(images, bad_images="skip")


@pytest.mark.parametrize("folders", [["train"], ["train", "val"]])
def test_skipping_all_training_images_is_an_error(images, folders):
    damage(*(images / name for name in folders))
    with pytest.raises(errors.UsageError, match="all 18 training images are unusable"):
        load(images, bad_images="skip")


def test_skipping_all_images_of_a_single_tree_is_an_error(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 2)
    damage(root)
    with pytest.raises(errors.UsageError, match="all 6 training images are unusable"):
        load(root, bad_images="skip")


def test_skipped_classes_leave_too_few_to_classify(images):
    damage(images / "train" / "gray", images / "train" / "white")
    with pytest.raises(errors.UsageError, match="training images of 1 class"):
        load(images, bad_images="skip")


def test_paths_are_encoded_as_the_locale_says(tmp_path, monkeypatch):
    names = types.SimpleNamespace(names=["summer"])
    builder = types.SimpleNamespace(
        examples=lambda split: [(f"{tmp_path}/été", 0)],
        info=types.SimpleNamespace(features={"label": names}),
    )
    try:
        with open(f"{tmp_path}/été".encode("latin-1"), "wb") as file:
            file.write(b"content")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))
    source = example_source.FileSource(builder, "train")
    assert source.fetch(tf.constant(0, tf.int64)).numpy() == b"content"


def test_images_behind_a_link_and_back_are_read_where_the_system_finds_them(
    images, tmp_path, monkeypatch
):
    (tmp_path / "disk" / "link").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/link")
    shutil.move(images, tmp_path / "disk" / "photos")
    shutil.copytree(tmp_path / "disk" / "photos", tmp_path / "photos")
    damage(tmp_path / "photos")  # another folder, which has the path without `link/..`
    monkeypatch.chdir(tmp_path)
    behind, direct = load("link/../photos"), load("disk/photos")
    assert behind.train.path(0).startswith("link/../photos/train/black/")
    assert behind.fingerprint == direct.fingerprint
    (image, _), (expected, _) = (data.train.fetch(tf.constant(0)) for data in (behind, direct))
    assert image.numpy() == expected.numpy()


def test_a_split_is_a_view_of_its_source(images):
    train = load(images).train
    part = train.take(np.array([5, 2]))
    assert part.path(0) == train.path(5) and part.describe(1) == train.describe(2)
    np.testing.assert_array_equal(part.digests, train.digests[[5, 2]])
    assert not dataclasses.replace(part).problems.any()


def parts_of(data):
    return {(data.train.path(i)) for i in range(len(data.train))}, {
        data.validation.path(i) for i in range(len(data.validation))
    }


def test_the_folds_are_disjoint_stratified_and_cover_all_training_images(images, capsys):
    for i in range(5):  # 11, 6 and 6 images
        shutil.copy(
            images / "train" / "black" / "black_00.png", images / "train" / "black" / f"{i}.png"
        )
    everything = parts_of(load(images))[0]
    folds = [load(images, fold=f"{i}/4") for i in range(1, 5)]
    assert "fold 4/4, 3 classes, 18 training and 5 validation images" in capsys.readouterr().out
    held_out = [parts_of(data)[1] for data in folds]
    assert set.union(*held_out) == everything and sum(map(len, held_out)) == 23
    assert {len(part) for part in held_out} == {5, 6}
    for data in folds:
        assert data.split_here and parts_of(data)[0] == everything - parts_of(data)[1]
        counts = np.bincount(data.validation.labels)
        assert counts[0] in (2, 3) and set(counts[1:]) <= {1, 2}
    assert load(images, fold="2/4").fingerprint == folds[1].fingerprint
    assert load(images, fold="2/4", split_seed=1).fingerprint != folds[1].fingerprint
    assert len(load(images, fold="2/4", train_per_class=3).train) == 9


def test_classes_of_fewer_images_than_folds(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 2)
    folds = [load(root, fold=f"{i}/6") for i in range(1, 7)]
    assert [len(data.validation) for data in folds] == [1] * 6
    assert all(set(data.train.labels) == {0, 1, 2} for data in folds)
    with pytest.raises(errors.UsageError, match="6 training images .* into 7 parts"):
        load(root, fold="1/7")
    next((root / "gray").iterdir()).unlink()
    for fold in ("1/3", "2/3", "3/3"):
        with pytest.raises(errors.UsageError, match="'gray' has one image: with --fold"):
            load(root, fold=fold)


def test_a_fold_does_not_read_the_validation_split(images, capsys):
    damage(images / "val")
    assert len(load(images, fold="1/2").validation) == 9
    index = paths.cache_dir() / "images.sqlite"
    with contextlib.closing(sqlite3.connect(index)) as database:
        assert database.execute("SELECT count(*) FROM info").fetchone() == (18,)
    assert "note: --fold is given" in capsys.readouterr().out


def test_test_images_keep_the_labels_of_the_run(images, tmp_path, capsys):
    """The test folder lacks the first class, so that its own labels are others."""
    trained = load(images)
    test = helpers.write_classes(tmp_path / "test", 2, seed=3)
    shutil.rmtree(test / "black")
    shutil.copy(images / "train" / "white" / "white_00.png", test / "white" / "trained_on.png")
    data = dataset_lib.load_test(
        config_lib.Config.of(dataset=str(images), test_dataset=str(test)), trained
    )
    assert data.evaluated == "test" and data.train is trained.train
    names = [data.class_names[label] for label in data.validation.labels]
    assert names == ["gray"] * 2 + ["white"] * 3
    for index, name in enumerate(names):
        _, label = data.validation.fetch(tf.constant(index, tf.int64))
        assert data.class_names[int(label)] == name
    assert data.validation_in_training == 1 and trained.validation_in_training == 0
    assert data.fingerprint != trained.fingerprint
    assert "5 images, 1 of them also among the training images" in capsys.readouterr().out


def test_the_validation_split_of_a_test_set_is_taken(images):
    trained = load(images, fold="1/3")
    config = config_lib.Config.of(dataset=str(images), fold="1/3", test_dataset=str(images))
    data = dataset_lib.load_test(config, trained)
    assert len(data.validation) == 9 and data.validation.path(0).startswith(str(images / "val"))


def test_the_runs_own_folder_as_test_set_says_what_is_scored(images, capsys):
    trained = load(images)
    config = config_lib.Config.of(dataset=str(images), test_dataset=str(images))
    dataset_lib.load_test(config, trained)
    assert "9 among the validation images, by which" in capsys.readouterr().out
    helpers.write_classes(images / "test", 1, seed=3)
    data = dataset_lib.load_test(config, trained)
    assert data.validation.path(0).startswith(str(images / "test"))
    assert "0 among the validation images, by which" in capsys.readouterr().out


def test_the_training_images_of_a_test_set_do_not_matter(images, tmp_path):
    trained = load(images)
    other = tmp_path / "other"
    shutil.copytree(images / "val", other / "test")
    (other / "train" / "empty").mkdir(parents=True)
    shutil.copytree(images / "train" / "white", other / "train" / "white")
    next((other / "train" / "white").iterdir()).write_bytes(b"no image")
    config = config_lib.Config.of(dataset=str(images), test_dataset=str(other))
    assert len(dataset_lib.load_test(config, trained).validation) == 9


def table_of(path, folder, splits):
    """A list of the images of a folder; the classes' splits follow in turn."""
    images = sorted(folder.rglob("*.png"))
    lines = [f"{p},{p.parent.name},{splits[n % len(splits)]}" for n, p in enumerate(images)]
    path.write_text("path,label,split\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "splits, expected",
    [(["test"], 9), (["train", "val", "test"], 3), (["train", "val"], 4), (["train"], 9)],
)
def test_the_test_lines_of_a_list_are_evaluated(images, tmp_path, splits, expected):
    test = table_of(tmp_path / "test.csv", images / "val", splits)
    config = config_lib.Config.of(
        dataset=str(images), class_separator="/", test_dataset=str(test)
    )  # the separator is for the run's folders
    data = dataset_lib.load_test(config, load(images))
    assert len(data.validation) == expected


def test_test_images_of_one_class_are_evaluated(images, tmp_path):
    shutil.copytree(images / "val" / "white", tmp_path / "test" / "white")
    config = config_lib.Config.of(dataset=str(images), test_dataset=str(tmp_path / "test"))
    data = dataset_lib.load_test(config, load(images))
    assert [data.class_names[label] for label in data.validation.labels] == ["white"] * 3


def test_errors_of_test_images_name_their_flag(images, tmp_path):
    config = config_lib.Config.of(dataset=str(images), test_dataset=str(tmp_path / "nowhere.csv"))
    with pytest.raises(errors.UsageError, match="--test_dataset=.*nowhere.csv does not exist"):
        dataset_lib.load_test(config, load(images))
    config = config.replace(test_dataset=f"{images},{tmp_path / 'nowhere'}")
    with pytest.raises(errors.UsageError, match="not a folder: --test_dataset names 2 folders"):
        dataset_lib.load_test(config, load(images))


def test_validation_images_among_the_training_images_are_reported(images, capsys):
    shutil.copy(next((images / "train" / "gray").iterdir()), images / "val" / "gray" / "same.png")
    load(images)
    assert "note: 1 of the validation images are training images" in capsys.readouterr().out


def test_test_images_of_an_unknown_class_are_refused(images, tmp_path, capsys):
    test = helpers.write_classes(tmp_path / "test", 1)
    (test / "gray").rename(test / "grey")
    config = config_lib.Config.of(dataset=str(images), test_dataset=str(test))
    with pytest.raises(errors.UsageError, match="classes that the run was not trained on: grey"):
        dataset_lib.load_test(config, load(images))
    (test / "grey").rename(test / "Gray")
    with pytest.raises(errors.UsageError, match="not trained on: Gray"):
        dataset_lib.load_test(config, load(images))
    assert "differ only in letter case" in capsys.readouterr().out


def test_test_classes_have_the_words_of_the_data_set_that_they_are_a_part_of(tmp_path):
    """Folders named by WordNet ids, with words.txt beside train/ and val/."""
    root, ids = tmp_path / "images", ("n00000001", "n00000002", "n00000003")
    for split, count in (("train", 4), ("val", 2)):
        helpers.write_classes(root / split, count)
        for name, wnid in zip(helpers.CLASSES, ids, strict=True):
            (root / split / name).rename(root / split / wnid)
    (root / "words.txt").write_text("".join(map("{}\tword {}\n".format, ids, "abc")))
    data = load(root)
    assert data.class_names == ("word a", "word b", "word c")
    config = config_lib.Config.of(dataset=str(root), test_dataset=str(root / "val"))
    assert len(dataset_lib.load_test(config, data).validation) == 6
    data = load(root / "train")  # no words.txt is beside these class folders
    assert data.class_names == ids
    assert len(dataset_lib.load_test(config, data).validation) == 6
