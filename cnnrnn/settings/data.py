"""Data settings: the data set, its splits, the preparation of its images."""

import dataclasses
import os
import pathlib
import re

from cnnrnn.settings import fields, image_sizes, paths

BUILT_IN = ("digits", "digit_stacks", "photos", "tiny_imagenet_100")
TABLE_SUFFIXES = (".csv", ".jsonl")
RESIZE_METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")


def _is_fold(text: str) -> bool:
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    return text == "" or bool(match and 1 <= int(match[1]) <= int(match[2]) and int(match[2]) > 1)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which images, and how they are prepared."""

    dataset: str = fields.setting(
        "digits",
        "What to train on: 'digits', 'digit_stacks' or 'photos' (built in), 'tiny_imagenet_100', "
        "'tfds:NAME[/CONFIG]', a folder of images (train/CLASS/* and val/CLASS/*, or CLASS/*, or "
        "the original tiny-imagenet layout), several such folders separated by commas, or a .csv "
        "or .jsonl file with the columns path, label and, if wanted, split. ./run.sh trains on "
        "'photos' by default, unless a --flagfile is given.",
        fields.GIVEN,
    )
    archive: str = fields.setting(
        "", "tiny_imagenet_100 only: path of the zip, if you have it already."
    )
    data_dir: str = fields.setting(
        "",
        "Folder for prepared data sets and downloads. Empty: $CNNRNN_CACHE/datasets, or "
        "~/.cache/cnnrnn/datasets.",
    )
    class_separator: str = fields.setting(
        "",
        "Folders of images only: every folder that holds images is a class, named by its path with "
        "this separator between the folders, e.g. '/': cats/siamese. Empty: the first level of "
        "folders is the classes, and deeper folders belong to them.",
    )
    validation_fraction: float = fields.setting(
        0.1,
        "Fraction of each class held out for validation if the data set has no validation split.",
        fields.FRACTION,
    )
    fold: str = fields.setting(
        "",
        "Cross-validation, e.g. 1/5: the training images are divided by --split_seed into 5 equal "
        "parts with the same mix of classes, of which the first validates and the others train. "
        "The data set's own validation split is not used.",
        (_is_fold, "I/K with I from 1 to K and K from 2 to 9999, or empty"),
    )
    split_seed: int = fields.setting(
        0,
        "Seed of the splits by --fold and --validation_fraction, and of the choice of images by "
        "--train_per_class and --validation_per_class.",
        fields.SEED,
    )
    train_per_class: int = fields.setting(
        0, "Train on this many images of each class, chosen by --split_seed. 0: all.",
        fields.NOT_NEGATIVE,
    )  # fmt: skip
    validation_per_class: int = fields.setting(
        0, "Validate on this many images of each class, chosen by --split_seed. 0: all.",
        fields.NOT_NEGATIVE,
    )  # fmt: skip
    bad_images: str = fields.setting(
        "stop",
        "What to do if images cannot be decoded, which is checked before training: 'stop', or "
        "'skip' them and list them.",
        fields.one_of("stop", "skip"),
    )
    max_megapixels: float = fields.setting(
        100.0,
        "Reject images with more than this many million pixels: decoding takes 3 bytes of memory "
        "for each pixel, and a small file can decode to gigabytes.",
        # In pixels it is a 64-bit integer in graphs.
        (lambda value: 0 < value <= 1e12, "a number above 0, at most 1e12"),
    )
    resize_method: str = fields.setting(
        "bilinear",
        f"How images are resized to 299x299: {', '.join(RESIZE_METHODS)}.",
        fields.one_of(*RESIZE_METHODS),
    )
    eval_image_size: int = fields.setting(
        0,
        "Image size of the CNN branch in validation, evaluation, prediction and export. 0: the "
        "--eval_image_size of the run's training, or 299 if it had none, whatever its "
        "--cnn_image_size. The RNN branch always reads 299x299.",
        (
            lambda value: value == 0 or image_sizes.is_valid_size(value),
            f"0, or from {image_sizes.SMALLEST} to {image_sizes.LARGEST}",
        ),
    )

    @property
    def is_built(self) -> bool:
        """Whether --dataset names a data set that is prepared, rather than files."""
        return self.dataset in BUILT_IN or self.dataset.startswith("tfds:")

    @property
    def locations(self) -> tuple[pathlib.Path, ...]:
        """--dataset as paths: one, or several separated by commas, unless it exists as it is."""
        parts = [part.strip() for part in self.dataset.split(",")]
        whole = paths.expanded(self.dataset)
        if len(parts) == 1 or not any(parts) or os.path.lexists(whole):
            return (whole,)
        return tuple(paths.expanded(part) for part in parts if part)

    @property
    def table(self) -> pathlib.Path | None:
        """The file that lists the images, None if --dataset is something else."""
        path = self.locations[0]
        is_table = len(self.locations) == 1 and path.suffix.lower() in TABLE_SUFFIXES
        return path if is_table and not self.is_built and not path.is_dir() else None

    @property
    def prepared_data_dir(self) -> pathlib.Path:
        return paths.expanded(self.data_dir) if self.data_dir else paths.cache_dir() / "datasets"

    @property
    def max_pixels(self) -> int:
        return pixels(self.max_megapixels)


def pixels(megapixels: float) -> int:
    """A number of pixels; rounded, since 2.01 million in floating point is a little less."""
    return round(megapixels * 1e6)
