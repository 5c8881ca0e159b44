"""Tests of the digit_stacks data set."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn.data.digit_stacks import digit_stacks_dataset_builder

SPLITS = {"train": 600, "validation": 204}


@pytest.mark.thorough
class DigitStacksTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks of a data set."""

    DATASET_CLASS = digit_stacks_dataset_builder.Builder
    SPLITS = SPLITS
    # No dummy data is needed: the digits come with scikit-learn.
    EXAMPLE_DIR = str(pathlib.Path(__file__).parent)


def prepared(folder: pathlib.Path) -> dict[str, list[dict]]:
    """The examples of each split as stored, with encoded images."""
    builder = digit_stacks_dataset_builder.Builder(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {split: list(builder.as_data_source(split=split, decoders=decoders)) for split in SPLITS}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    return prepared(tmp_path_factory.mktemp("data"))


def sources(example: dict) -> list[int]:
    """The indices of an image's digits in scikit-learn's list, from top to bottom."""
    return [int(part) for part in example["filename"].decode().removesuffix(".png").split("_")[2:]]


def test_images_are_the_digits_of_their_class_from_top_to_bottom(examples):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    names = ["267", "276", "627", "672", "726", "762"]
    for example in [*examples["train"][:20], *examples["validation"][:20]]:
        image = tf.io.decode_image(example["image"]).numpy()
        assert image.shape == (24, 24, 1)
        drawn = sources(example)
        assert "".join(str(digits.target[index]) for index in drawn) == names[example["label"]]
        expected = np.concatenate(digits.images[drawn])
        np.testing.assert_array_equal(np.round(image[:, 8:16, 0] / 255 * 16), expected)
        assert not image[:, :8].any() and not image[:, 16:].any()


def test_no_digit_is_in_both_splits(examples):
    used = {split: {index for e in examples[split] for index in sources(e)} for split in SPLITS}
    assert not used["train"] & used["validation"]
    assert len(used["train"]) > 400 and len(used["validation"]) > 100


def test_the_classes_are_of_one_size(examples):
    for split, count in SPLITS.items():
        counts = collections.Counter(int(example["label"]) for example in examples[split])
        assert counts == dict.fromkeys(range(6), count // 6)


def test_the_images_are_the_same_every_time(examples, tmp_path):
    assert prepared(tmp_path) == examples


if __name__ == "__main__":
    tfds.testing.test_main()
