"""Layouts of image folders, odd names, and folders that cannot be trained on."""

import os
import pathlib
import shutil
import tempfile

import pytest
import tensorflow_datasets as tfds

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import dummy, tiny_imagenet_100_dataset_builder
from cnnrnn.datasets import image_folder
from tests import helpers


def examples(root, split="train"):
    return image_folder.build([root]).examples(split)


def labels(root, split="train"):
    return [label for _, label in examples(root, split)]


def test_a_folder_builder_is_a_tfds_builder(images):
    builder = image_folder.build([images])
    assert isinstance(builder, tfds.core.DatasetBuilder)
    assert builder.info.splits["train"].num_examples == 18
    assert builder.info.features["label"].names == list(helpers.CLASSES)
    assert labels(images) == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize("name", ["valid", "validation", "test", "Val", "TEST"])
def test_the_validation_folder_may_have_other_names(images, name):
    (images / "val").rename(images / name)
    assert labels(images, "validation") == [0] * 3 + [1] * 3 + [2] * 3


def test_the_training_folder_may_be_in_capitals(images):
    (images / "train").rename(images / "Train")
    assert labels(images) == [0] * 6 + [1] * 6 + [2] * 6


def test_folders_that_differ_in_case_only_are_refused(images):
    shutil.copytree(images / "train", images / "TRAIN")
    with pytest.raises(errors.UsageError, match="has TRAIN/ and train/: rename or merge them"):
        image_folder.build([images])


def test_folders_beside_the_splits_are_named(images, capsys):
    shutil.copytree(images / "val", images / "test")
    image_folder.build([images])
    assert "has train/, so these folders are ignored: test" in capsys.readouterr().out


def test_a_class_may_be_called_train(tmp_path):
    root = helpers.write_classes(tmp_path / "vehicles", 5)
    (root / "gray").rename(root / "train")
    assert image_folder.build([root]).info.features["label"].names == ["black", "train", "white"]


def test_unlabelled_images_beside_train_are_not_a_validation_split(images, capsys):
    (images / "val").rename(images / "elsewhere")
    (images / "test").mkdir()
    image = next((images / "train" / "black").iterdir())
    shutil.copy(image, images / "test" / "1.png")
    assert list(image_folder.build([images]).info.splits) == ["train"]
    assert "test contains no class folders, so it is not used as a split" in capsys.readouterr().out


@pytest.mark.parametrize("is_test", [False, True])
def test_unlabelled_images_in_one_folder_are_no_classes(images, is_test, capsys):
    (images / "test" / "images").mkdir(parents=True)
    shutil.copy(next((images / "train" / "black").iterdir()), images / "test" / "images")
    builder = image_folder.build([images], is_test=is_test)  # test/ would come first of test images
    assert len(builder.examples("train" if is_test else "validation")) == 9
    if is_test:
        (images / "val").rename(images / "elsewhere")
        assert len(image_folder.build([images], is_test=True).examples("train")) == 18
        assert "test contains only one folder, which is no class" in capsys.readouterr().out


def test_test_classes_of_other_names_are_not_taken_for_images_without_labels(images):
    for name in ("Black", "Gray"):
        shutil.copytree(images / "val" / name.lower(), images / "test" / name)
    assert len(image_folder.build([images], is_test=True).examples("train")) == 6
    shutil.rmtree(images / "val")
    with pytest.raises(errors.UsageError, match="the class 'Black', which the training folder"):
        image_folder.build([images])


def test_a_folder_that_is_not_used_need_not_be_readable(images, monkeypatch):
    (images / "test").mkdir()
    (images / "loop").symlink_to("loop")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("test"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert labels(images, "validation") == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test"),
        ("Train", "VAL", "other"),
        ("training_set/cats", "test_set/cats"),
        ("seg_train/cats", "seg_test/cats", "seg_pred"),
        ("trainset/cats", "testset/cats"),
        ("trainA", "trainB", "testA", "testB"),
        ("val/cats", "Test/cats"),
    ],
)
def test_folders_named_like_splits_are_not_taken_for_classes(tmp_path, folders):
    """train/ and test/ with images directly in them, and other names of splits."""
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(b"")
    with pytest.raises(errors.UsageError, match="named like splits.*: name them train and val"):
        image_folder.build([tmp_path])


def test_no_temporary_folder_is_left(images, monkeypatch, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    image_folder.build([images])
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "names",
    [("bullet_train", "test_tube"), ("train", "bus", "crash_test_dummy")],
)
def test_classes_whose_names_contain_those_of_splits_are_classes(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
    builder = image_folder.build([tmp_path])
    assert builder.info.features["label"].names == sorted(names)


def test_testing_beside_training_is_a_split(images, capsys):
    (images / "train").rename(images / "Training")
    (images / "val").rename(images / "Testing")
    assert len(image_folder.build([images]).examples("validation")) == 9
    assert "class folders under Training/ and Testing/" in capsys.readouterr().out
    assert len(image_folder.build([images], is_test=True).examples("train")) == 9


def test_a_validation_class_that_differs_in_letter_case_is_noted(images, capsys):
    (images / "val" / "gray").rename(images / "val" / "Gray")
    with pytest.raises(errors.UsageError, match="'Gray', which the training folder lacks"):
        image_folder.build([images])
    assert "differ only in letter case" in capsys.readouterr().out


def test_of_test_images_the_test_folder_comes_first(images, capsys):
    helpers.write_classes(images / "test", 2, seed=3)
    builder = image_folder.build([images], is_test=True)
    assert len(builder.examples("train")) == 6
    output = capsys.readouterr().out
    assert "class folders under test/\n" in output and "are ignored: train, val" in output
    assert len(image_folder.build([images]).examples("validation")) == 9


def test_what_is_beside_the_class_folders_is_counted(images, capsys):
    train = images / "train"
    shutil.copy(next((train / "black").iterdir()), train / "1.png")
    (train / "more").symlink_to(images / "nowhere")
    (train / "README.txt").write_text("x")
    image_folder.build([images])
    out = capsys.readouterr().out
    assert "2 file(s)" in out and "1 image(s) outside the class folders" in out
    assert "1 broken link(s)" in out and "README" not in out


def test_folders_that_a_system_adds_are_skipped(images, capsys):
    image = next((images / "train" / "black").iterdir())
    for folder in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "black/@eaDir"):
        (images / "train" / folder).mkdir()
        shutil.copy(image, images / "train" / folder / "thumbnail.png")
    assert len(examples(images)) == 18
    assert "2 @eaDir, 1 __MACOSX" in capsys.readouterr().out


@pytest.mark.parametrize("separator", ["", "/"])
def test_the_files_of_a_class_without_images_are_named(images, separator):
    for path in (images / "train" / "gray").iterdir():
        path.rename(path.with_suffix(".dng"))
    with pytest.raises(errors.UsageError, match=r"gray holds no images but 6 .dng: .*\.jpg, .jpeg"):
        image_folder.build([images], separator=separator)


def test_a_class_added_to_train_shifts_the_labels(images, capsys):
    shutil.copytree(images / "train" / "black", images / "train" / "aaa")
    assert sorted(set(labels(images, "validation"))) == [1, 2, 3]
    assert "no images of 1 class(es), e.g. 'aaa'" in capsys.readouterr().out


def test_images_of_all_formats_are_listed_and_other_files_counted(images, capsys):
    folder = images / "train" / "black"
    image = next(folder.iterdir()).read_bytes()
    for name in ("a.GIF", "b.webp", "c.bmp", "d.tiff", "e.jpeg"):
        (folder / name).write_bytes(image)
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "f.png").write_bytes(image)
    assert len(examples(images)) == 18 + 6
    assert "1 file(s)" in (out := capsys.readouterr().out) and "1 .txt" in out


def test_links_are_followed_but_not_in_circles(images):
    folder = images / "train" / "black"
    (folder / "more").symlink_to(images / "val" / "black")
    (folder / "round").symlink_to(folder)
    (folder / "broken.png").symlink_to(images / "nowhere.png")
    assert len(examples(images)) == 18 + 3 + 1  # the broken link is found when it is read


def test_files_with_odd_names_are_listed(images):
    folder = images / "train" / "black"
    image = next(folder.iterdir()).read_bytes()
    names = ["two words.png", "été\n.png", "\udcff.png"]
    for name in names:
        try:
            (folder / name).write_bytes(image)
        except (OSError, UnicodeError):
            pytest.skip("this file system takes only UTF-8")
    listed = {pathlib.Path(path).name for path, _ in examples(images)}
    assert listed.issuperset(names)


def test_a_class_name_that_is_not_utf8_is_made_printable(images):
    for split in ("train", "val"):
        try:
            (images / split / "white").rename(images / split / "w\udcffhite")
        except (OSError, UnicodeError):
            pytest.skip("this file system takes only UTF-8")
    names = image_folder.build([images]).info.features["label"].names
    assert names[2] == "w\ufffdhite"


def add_an_empty_class(root):
    (root / "train" / "none").mkdir()


def leave_one_class(root):
    for name in ("gray", "white"):
        shutil.rmtree(root / "train" / name)


def rename_a_validation_class(root):
    (root / "val" / "black").rename(root / "val" / "green")


def empty_the_validation_classes(root):
    for folder in (root / "val").iterdir():
        for path in folder.iterdir():
            path.unlink()


def remove_all(root):
    for split in ("train", "val"):
        shutil.rmtree(root / split)


def leave_one_image_outside_of_folders(root):
    shutil.copy(next((root / "train" / "gray").iterdir()), root / "1.png")
    remove_all(root)


@pytest.mark.parametrize(
    "change, message",
    [
        (add_an_empty_class, "none holds no images"),
        (leave_one_class, "only 'black'"),
        (rename_a_validation_class, "'green', which the training folder lacks"),
        (empty_the_validation_classes, "val holds no images"),
        (remove_all, "has no folders in it"),
        (leave_one_image_outside_of_folders, "has no folders in it"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_an_error(images, change, message):
    change(images)
    with pytest.raises(errors.UsageError, match=message):
        image_folder.build([images])


@pytest.mark.parametrize("name", ["no/such/folder", "digit"])
def test_a_missing_folder_is_an_error(name):
    with pytest.raises(errors.UsageError, match="neither a folder nor a known data set"):
        image_folder.build([pathlib.Path(name)])


def test_problems_are_collected_for_a_callback(images):
    add_an_empty_class(images)
    rename_a_validation_class(images)
    problems = []
    builder = image_folder.build([images], problems.append)
    assert len(builder.examples("train")) == 18 and len(builder.examples("validation")) == 6
    assert len(problems) == 2 and "none holds no images" in problems[0]


def test_folders_are_merged_by_class_as_if_copied_into_one(images, tmp_path):
    """One has train/ and val/, the other is a tree, which is trained on."""
    more = helpers.write_classes(tmp_path / "more", 2, seed=3)
    for path in more.rglob("*.png"):
        path.rename(path.with_name(f"{path.name.replace('_0', '_0a')}"))
    (more / "gray").rename(more / "new")
    builder = image_folder.build([images, more])
    assert builder.info.features["label"].names == ["black", "gray", "new", "white"]
    one = tmp_path / "one"
    shutil.copytree(images, one)
    shutil.copytree(more, one / "train", dirs_exist_ok=True)
    for split in ("train", "validation"):
        merged, copied = builder.examples(split), examples(one, split)
        assert [label for _, label in merged] == [label for _, label in copied]
        assert [pathlib.Path(path).name for path, _ in merged] == [
            pathlib.Path(path).name for path, _ in copied
        ]
    other_order = image_folder.build([more, images])
    assert other_order.examples("train") == builder.examples("train")


def test_a_class_may_be_trained_on_in_one_folder_and_validated_on_in_another(tmp_path):
    first = helpers.write_classes(tmp_path / "a" / "train", 2).parent
    helpers.write_classes(tmp_path / "b" / "train", 2)
    helpers.write_classes(tmp_path / "b" / "val", 1)
    shutil.rmtree(tmp_path / "b" / "train" / "gray")
    builder = image_folder.build([first, tmp_path / "b"])
    assert [label for _, label in builder.examples("validation")] == [0, 1, 2]
    shutil.rmtree(first / "train" / "gray")
    with pytest.raises(errors.UsageError, match="'gray', which the training folder.*gray_00"):
        image_folder.build([first, tmp_path / "b"])


def test_the_original_layout_merges_with_class_folders_named_by_ids(tmp_path):
    builder = tiny_imagenet_100_dataset_builder
    original = dummy.write_folder(
        tmp_path / "original", dummy.files(list(builder._classes()), 2, 1)
    )
    alone = image_folder.build([original])
    wnid = sorted(builder._classes())[3]
    shutil.copytree(original / "train" / wnid / "images", tmp_path / "more" / wnid)
    merged = image_folder.build([tmp_path / "more", original])
    assert merged.info.features["label"].names == alone.info.features["label"].names
    assert merged.examples("validation") == alone.examples("validation")
    extra = set(merged.examples("train")) - set(alone.examples("train"))
    assert {label for _, label in extra} == {3} and len(extra) == 2


@pytest.mark.parametrize("others, content", [("", "black\twords\n"), ("n00000001", "été")])
def test_words_are_read_only_beside_class_folders_named_by_ids(images, others, content):
    if others:
        (images / "train" / "gray").rename(images / "train" / others)
        shutil.rmtree(images / "val")
    (images / "words.txt").write_bytes(content.encode("latin-1"))
    names = image_folder.build([images]).info.features["label"].names
    assert names == sorted({"black", "white", others or "gray"})


@pytest.mark.parametrize(
    "names, message",
    [
        (["images", "none"], "none is not a folder: --dataset names 2"),
        (["images", "images"], "twice"),
    ],
)
def test_several_folders_that_cannot_be_merged(images, names, message):
    with pytest.raises(errors.UsageError, match=message):
        image_folder.build([images.parent / name for name in names])


@pytest.fixture
def nested(images):
    """black/, black/deep/ and gray/one/ hold images; so does white/one/, but not gray/ itself."""
    for split in ("train", "val"):
        for source, folder in (("gray", "gray/one"), ("white", "white/one"), ("black", "black")):
            target = images / split / folder
            target.mkdir(exist_ok=True)
            for path in sorted((images / split / source).glob("*.png")):
                path.rename(target / path.name)
        deep = images / split / "black" / "deep"
        deep.mkdir()
        moved = next((images / split / "black").glob("*_01.png"))
        moved.rename(deep / moved.name)
    return images


def test_every_folder_with_images_is_a_class_with_a_separator(nested):
    builder = image_folder.build([nested], separator="/")
    assert builder.info.features["label"].names == [
        "black", "black/deep", "gray/one", "white/one",
    ]  # fmt: skip
    assert [label for _, label in builder.examples("train")] == [0] * 5 + [1] + [2] * 6 + [3] * 6
    assert [label for _, label in builder.examples("validation")] == [0, 0, 1] + [2] * 3 + [3] * 3
    assert labels(nested) == [0] * 6 + [1] * 6 + [2] * 6  # without one, deeper folders belong


def test_nested_class_folders_that_are_refused(nested):
    (nested / "train" / "gray" / "two").mkdir()
    with pytest.raises(errors.UsageError, match="gray/two holds no images"):
        image_folder.build([nested], separator="/")
    (nested / "train" / "gray" / "two").rmdir()
    shutil.copytree(nested / "train" / "gray" / "one", nested / "train" / "gray-one")
    with pytest.raises(errors.UsageError, match="the same class name 'gray-one': give another"):
        image_folder.build([nested], separator="-")


def test_images_of_the_same_name_keep_the_order_of_the_folders(tmp_path):
    roots = [helpers.write_classes(tmp_path / name, 2) for name in ("z", "a")]
    merged = [pathlib.Path(path) for path, label in image_folder.build(roots).examples("train")]
    assert [path.parent.parent.name for path in merged] == ["z", "a"] * 6
    assert [path.name for path in merged[:4]] == ["black_00.png"] * 2 + ["black_01.png"] * 2
