"""Stacks of three handwritten digits, whose order is the class, as a TFDS data set."""

import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

_DIGITS = (2, 6, 7)
_ORDERS = tuple(itertools.permutations(_DIGITS))  # from top to bottom; by index, the labels
_SIDE = 8  # of a digit
_STACK = _SIDE * len(_DIGITS)  # height and width of an image
_LEFT = (_STACK - _SIDE) // 2
_BRIGHTEST = 16
_EXAMPLES = {"train": 600, "validation": 204}
_VALIDATION_FRACTION = 0.2  # of the digits
# Part of the data set's definition: another value gives other images and requires a new VERSION.
_SEED = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for the digit_stacks data set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        """The data set's metadata."""
        names = ["".join(map(str, order)) for order in _ORDERS]
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(_STACK, _STACK, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=names),
                    "filename": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            # Stored in the order of the keys instead of TFDS's hash of them.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        """The examples of each split, which share no digit."""
        del dl_manager  # nothing to download: the digits are part of scikit-learn
        # Imported here because it is slow and only needed to prepare the images.
        import sklearn.datasets

        digits = sklearn.datasets.load_digits()
        # (N, 8, 8), from 0 to 16, scaled to 0 to 255
        images = np.round(digits.images * (255 / _BRIGHTEST)).astype(np.uint8)
        # RandomState, because draws of a Generator may differ between versions of NumPy.
        rng = np.random.RandomState(_SEED)
        sources: dict[str, dict[int, np.ndarray]] = {"train": {}, "validation": {}}
        for digit in _DIGITS:
            indices = rng.permutation(np.flatnonzero(digits.target == digit))
            held_out = round(len(indices) * _VALIDATION_FRACTION)
            sources["validation"][digit] = indices[:held_out]
            sources["train"][digit] = indices[held_out:]
        return {
            split: self._generate_examples(images, of_split, split)
            for split, of_split in sources.items()
        }

    def _generate_examples(
        self, images: np.ndarray, sources: dict[int, np.ndarray], split: str
    ) -> Iterator[tuple[int, dict]]:
        """Yields the examples of a split, of all classes in turn.

        Args:
            images: of digits, (N, 8, 8) uint8.
            sources: indices of the images to draw from, by digit.
            split: its name.
        """
        rng = np.random.RandomState([_SEED, list(_EXAMPLES).index(split)])
        for number in range(_EXAMPLES[split]):
            label = number % len(_ORDERS)
            drawn = [int(rng.choice(sources[digit])) for digit in _ORDERS[label]]
            stack = np.zeros((_STACK, _STACK, 1), np.uint8)
            stack[:, _LEFT : _LEFT + _SIDE, 0] = np.concatenate(images[drawn])
            indices = "_".join(f"{index:04d}" for index in drawn)
            yield (
                number,
                {"image": stack, "label": label, "filename": f"stack_{number:03d}_{indices}.png"},
            )
