"""A folder of images as a TFDS builder, whichever of three layouts it has.

ROOT/train/CLASS/*, ROOT/val/CLASS/*   split by the user (val, valid, validation or test)
ROOT/CLASS/*                           one tree; `datasets` splits it
the original tiny-imagenet layout      see data/tiny_imagenet_100/original_layout.py
"""

import collections
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NoReturn

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.folder_dataset import image_folder

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import original_layout, sources

# What decode_image can read, and beside it the formats it cannot: a folder with TIFFs must not
# train on the rest as if they were not there.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .avif .heic .heif .jp2".split()
)
TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation", "test")

Fault = Callable[[str], None]
Examples = tuple[tuple[str, int], ...]  # (path, label index), in canonical order


class FolderBuilder(tfds.folder_dataset.ImageFolder):
    """`tfds.folder_dataset.ImageFolder` over a given list of files.

    ImageFolder itself lists only .jpg, .jpeg and .png, knows one layout, and shuffles its list;
    this one takes the examples in the order in which they are to be numbered: by label, then by
    name, so that the same images in another layout are the same data set.

    Args:
        root: the folder, for `data_dir`.
        splits: (path, label index) pairs by split name.
        class_names: names by label index.
    """

    def __init__(self, root: pathlib.Path, splits: dict[str, Examples], class_names: list[str]):
        # ImageFolder.__init__ would walk the folder its own way; its parent's does not.
        self._image_shape = self._image_dtype = None
        super(tfds.folder_dataset.ImageFolder, self).__init__(data_dir=root)
        self._data_dir = str(root)
        self._examples = splits
        self.info.features["label"].names = class_names
        # What ImageFolder's own as_dataset reads.
        self._split_examples = {
            name: [image_folder._Example(path, class_names[label]) for path, label in rows]
            for name, rows in splits.items()
        }
        self.info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.splits.SplitInfo(name=name, shard_lengths=[len(rows)], num_bytes=0)
                    for name, rows in splits.items()
                ]
            )
        )

    def examples(self, split: str) -> Examples:
        """The (path, label index) pairs of a split, in canonical order."""
        return self._examples[split]


def build(root: pathlib.Path, fault: Fault | None = None) -> FolderBuilder:
    """Recognises the layout of a folder and lists its images.

    Args:
        root: the folder.
        fault: takes what is wrong with one class or one folder, which is then passed over. None:
            the first is raised.

    Returns:
        A builder with the splits 'train' and, where the folder has one, 'validation'.

    Raises:
        UsageError: no such folder, no class folders, an empty class, a single class, a class in
            validation that train lacks.
    """
    fault = fault or _raise
    if not root.is_dir():
        raise errors.UsageError(
            f"--dataset={root} is neither a folder here nor a known data set: expected a folder "
            "of images, 'digits', 'tiny_imagenet_100' or 'tfds:NAME'."
        )
    if original_layout.is_original_layout(root):
        logging.info(f"{root}: the original tiny-imagenet layout")
        layout = original_layout.read(root)
        splits = {
            "train": _as_examples(layout.train),
            "validation": _as_examples(layout.validation),
        }
        return FolderBuilder(root, splits, list(layout.class_names))
    train_dir = _first_split(root, TRAIN_NAMES)
    validation_dir = _first_split(root, VALIDATION_NAMES) if train_dir else None
    if train_dir is None and not _subfolders(root):
        raise errors.UsageError(
            f"{root} has no folders in it: put the images of each class into a folder of their "
            "own, named after the class."
        )
    if train_dir is None:
        logging.info(f"{root}: one tree of class folders")
    else:
        validation = f"{validation_dir.name}/" if validation_dir else "no validation folder"
        logging.info(f"{root}: class folders under {train_dir.name}/ and {validation}")
    train = _classes(train_dir or root, fault)
    if len(train) < 2:
        only = f" (only {next(iter(train))!r})" if train else ""
        raise errors.UsageError(
            f"{train_dir or root} holds {len(train)} class folder(s){only}: a classifier needs at "
            "least two, one folder of images per class."
        )
    names = sorted(train)
    splits = {"train": _numbered(train, names)}
    if validation_dir is not None:
        splits["validation"] = _numbered(_validation_classes(validation_dir, names, fault), names)
    # Where the class folders are WordNet ids and words.txt lies beside them, the words are shown.
    shown = original_layout.class_names(sources.Folder(root), names)
    return FolderBuilder(root, splits, _printable(shown))


def _raise(message: str) -> NoReturn:
    raise errors.UsageError(message)


def _first_split(root: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    """The first folder of these names, in upper or lower case, that holds class folders."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    for name in names:
        if name not in folders:
            continue
        if _subfolders(folders[name]):
            return folders[name]
        logging.info(f"note: {folders[name]} has no class folders and is passed over")
    return None


def _subfolders(folder: pathlib.Path) -> list[os.DirEntry]:
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."]
    return sorted(entries, key=lambda entry: entry.name)


def _printable(names: Sequence[str]) -> list[str]:
    """Names that are not UTF-8 as text that can be written; still one for each class."""
    texts = [os.fsencode(name).decode(errors="replace") for name in names]
    twice = {text for text, count in collections.Counter(texts).items() if count > 1}
    return [f"{text} ({i})" if text in twice else text for i, text in enumerate(texts)]


def _as_examples(pairs) -> Examples:
    return tuple((str(path), label) for path, label in pairs)


def _numbered(classes: dict[str, list[str]], names: list[str]) -> Examples:
    labels = {name: label for label, name in enumerate(names)}
    return tuple((path, labels[name]) for name in names for path in classes.get(name, ()))


def _validation_classes(
    folder: pathlib.Path, train_names: list[str], fault: Fault
) -> dict[str, list[str]]:
    classes = _classes(folder, fault, empty_is_error=False)
    unknown = sorted(set(classes) - set(train_names))
    if unknown:
        fault(
            f"{folder} has the class {unknown[0]!r} that the training folder lacks"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + ": add it to the training folder or remove it here."
        )
    if not any(classes.values()):
        fault(
            f"{folder} holds no images: put class folders into it, or remove it to have the "
            "training images split (--validation_fraction)."
        )
    missing = [name for name in train_names if not classes.get(name)]
    if missing:
        logging.info(
            f"note: {folder} has no images of {len(missing)} class(es), e.g. {missing[0]!r}"
        )
    return classes


def _classes(
    folder: pathlib.Path, fault: Fault, empty_is_error: bool = True
) -> dict[str, list[str]]:
    """Lists the images of each class folder, sorted by their path within it.

    Sub-folders of a class are its images too. Hidden files and folders are passed over, and
    files that are no images by their suffix are counted aloud.
    """
    classes: dict[str, list[str]] = {}
    others: collections.Counter[str] = collections.Counter()
    for entry in _subfolders(folder):
        images = []
        seen: set[tuple[int, int]] = set()

        def unreadable(error: OSError) -> None:
            fault(f"{error.filename} cannot be read ({error.strerror}): mend it or remove it.")

        for directory, folders, files in os.walk(entry.path, onerror=unreadable, followlinks=True):
            place = os.stat(directory)
            if (place.st_dev, place.st_ino) in seen:
                logging.info(f"note: {directory} is a link that leads back, and is not followed")
                folders.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                suffix = os.path.splitext(name)[1].lower()
                if suffix in IMAGE_SUFFIXES and not name.startswith("."):
                    images.append(os.path.join(directory, name))
                elif not name.startswith("."):
                    others[suffix or "no suffix"] += 1
        if not images and empty_is_error:
            fault(f"the class folder {entry.path} holds no images: add some, or remove the folder.")
            continue
        classes[entry.name] = sorted(images)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        logging.info(f"note: {sum(others.values())} file(s) in {folder} are passed over ({kinds})")
    return classes
