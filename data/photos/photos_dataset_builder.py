"""Photographs of Tux Paint's stamps as a TFDS data set."""

import io
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

CLASSES = ("bird", "flower", "fruit", "household", "mammal", "vegetable", "vehicle")
_VALIDATION_FRACTION = 0.25
# Part of the data set's definition: another value gives another split and requires a new VERSION.
_SPLIT_SEED = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for the photos data set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        """The data set's metadata."""
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                    "filename": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://tuxpaint.org/stamps/",
            license="GPL-2.0, see COPYING.txt",
            # Stored in the order of the keys instead of TFDS's hash of them.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        """The examples of each split, stratified by class."""
        del dl_manager  # nothing to download: the images lie beside this file
        # Imported here because it is slow and only needed to prepare the photos.
        import sklearn.model_selection

        content = tfds.core.Path(__file__).with_name("photos.zip").read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(archive.namelist())
        train, validation = sklearn.model_selection.train_test_split(
            names,
            test_size=_VALIDATION_FRACTION,
            random_state=_SPLIT_SEED,
            stratify=[pathlib.PurePath(name).parent.name for name in names],
        )
        return {
            "train": self._generate_examples(content, sorted(train)),
            "validation": self._generate_examples(content, sorted(validation)),
        }

    def _generate_examples(
        self, content: bytes, names: Sequence[str]
    ) -> Iterator[tuple[int, dict]]:
        """Yields the examples, with the encoded images unchanged.

        Args:
            content: of the archive.
            names: of images in it, CLASS/NAME.jpg.
        """
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for key, name in enumerate(names):
                label, filename = name.split("/")
                yield key, {"image": archive.read(name), "label": label, "filename": filename}
