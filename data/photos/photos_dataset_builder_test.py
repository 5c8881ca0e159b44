"""Tests of the photos data set."""

import collections
import io
import pathlib

import PIL.Image
import pytest
import tensorflow_datasets as tfds

from cnnrnn.data.photos import make_archive, photos_dataset_builder


class PhotosTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks of a data set."""

    DATASET_CLASS = photos_dataset_builder.Builder
    SPLITS = {"train": 157, "validation": 53}
    # No dummy data is needed: the images lie beside the builder.
    EXAMPLE_DIR = str(pathlib.Path(__file__).parent)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """The examples of each split as stored, with encoded images."""
    builder = photos_dataset_builder.Builder(
        data_dir=str(tmp_path_factory.mktemp("data")), file_format="array_record"
    )
    builder.download_and_prepare()
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {
        split: list(builder.as_data_source(split=split, decoders=decoders))
        for split in ("train", "validation")
    }


def test_the_splits_are_disjoint_and_stratified(examples):
    images = [example["image"] for split in examples.values() for example in split]
    assert len(set(images)) == len(images) == 210
    counts = {
        split: collections.Counter(int(example["label"]) for example in examples[split])
        for split in examples
    }
    for label in range(len(photos_dataset_builder.CLASSES)):
        both = counts["train"][label] + counts["validation"][label]
        assert abs(counts["validation"][label] - both / 4) <= 1


def test_images_are_small_photographs_in_color(examples):
    for example in examples["validation"]:
        image = PIL.Image.open(io.BytesIO(example["image"]))
        assert image.format == "JPEG" and image.mode == "RGB"
        assert max(image.size) <= make_archive.SIDE


def test_the_classes_are_those_of_the_archive():
    assert tuple(make_archive.CLASSES) == photos_dataset_builder.CLASSES
