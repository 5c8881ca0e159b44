"""Tests of the digits data set."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from cnnrnn.data.digits import digits_dataset_builder


@pytest.mark.thorough
class DigitsTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks of a data set."""

    DATASET_CLASS = digits_dataset_builder.Builder
    SPLITS = {"train": 1437, "validation": 360}
    # No dummy data is needed: the images come with scikit-learn.
    EXAMPLE_DIR = str(pathlib.Path(__file__).parent)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """The examples of each split as stored, with encoded images."""
    builder = digits_dataset_builder.Builder(
        data_dir=str(tmp_path_factory.mktemp("data")), file_format="array_record"
    )
    builder.download_and_prepare()
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {
        split: list(builder.as_data_source(split=split, decoders=decoders))
        for split in ("train", "validation")
    }


def test_the_splits_are_disjoint_and_complete(examples):
    names = [example["filename"] for split in examples.values() for example in split]
    assert sorted(names) == [f"digit_{index:04d}.png".encode() for index in range(1797)]


def test_examples_are_stored_in_the_order_of_the_file_names(examples):
    for split in examples.values():
        names = [example["filename"] for example in split]
        assert names == sorted(names)


def test_the_splits_are_stratified_by_digit(examples):
    counts = {
        split: collections.Counter(int(example["label"]) for example in examples[split])
        for split in examples
    }
    for digit in range(10):
        both = counts["train"][digit] + counts["validation"][digit]
        assert abs(counts["validation"][digit] - 0.2 * both) <= 1


def test_images_and_labels_are_those_of_scikit_learn(examples):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    for example in examples["validation"][:20]:
        index = int(example["filename"].decode()[6:10])
        image = tf.io.decode_image(example["image"], channels=3).numpy()
        assert image.shape == (8, 8, 3)
        original = np.round(image[..., 0] / 255 * 16)
        np.testing.assert_array_equal(original, digits.images[index])
        assert example["label"] == digits.target[index]


if __name__ == "__main__":
    tfds.testing.test_main()
