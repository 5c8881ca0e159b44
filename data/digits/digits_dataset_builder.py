"""scikit-learn's handwritten digits as a TFDS data set."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

_SIDE = 8
_BRIGHTEST = 16
_VALIDATION_FRACTION = 0.2
# Part of the data set's definition: another value gives another split and requires a new VERSION.
_SPLIT_SEED = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for the digits data set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        """The data set's metadata."""
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(_SIDE, _SIDE, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "filename": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            # Stored in the order of the keys instead of TFDS's hash of them.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        """The examples of each split, stratified by digit."""
        del dl_manager  # nothing to download: the images are part of scikit-learn
        # Imported here because it is slow and only needed to prepare the digits.
        import sklearn.datasets
        import sklearn.model_selection

        digits = sklearn.datasets.load_digits()
        train, validation = sklearn.model_selection.train_test_split(
            np.arange(len(digits.target)),
            test_size=_VALIDATION_FRACTION,
            random_state=_SPLIT_SEED,
            stratify=digits.target,
        )
        # (N, 8, 8), from 0 to 16, scaled to 0 to 255; one to one, so no information is lost.
        images = np.round(digits.images * (255 / _BRIGHTEST)).astype(np.uint8)[..., np.newaxis]
        return {
            "train": self._generate_examples(images, digits.target, sorted(train)),
            "validation": self._generate_examples(images, digits.target, sorted(validation)),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: Sequence[int]
    ) -> Iterator[tuple[int, dict]]:
        """Yields the examples at some indices.

        Args:
            images: (N, 8, 8, 1) uint8.
            labels: (N,) integers from 0 to 9.
            indices: ascending.
        """
        for index in indices:
            yield (
                int(index),
                {
                    "image": images[index],
                    "label": int(labels[index]),
                    "filename": f"digit_{index:04d}.png",
                },
            )
