"""A TFDS builder of a folder of images, in any of three layouts.

ROOT/train/CLASS/*, ROOT/val/CLASS/*   split by the user (val, valid, validation or test)
ROOT/CLASS/*                           one tree; `dataset.load` splits it
the original tiny-imagenet layout      see data/tiny_imagenet_100/original_layout.py
"""

import collections
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.folder_dataset import image_folder

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import original_layout, sources
from cnnrnn.datasets import image_check
from cnnrnn.system import text as text_lib

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation", "test")

OnProblem = Callable[[str], None]
Examples = tuple[tuple[str, int], ...]  # (path, label), in canonical order


class FolderBuilder(tfds.folder_dataset.ImageFolder):
    """`tfds.folder_dataset.ImageFolder` over a given list of files.

    ImageFolder itself lists only .jpg, .jpeg and .png, reads one layout, and shuffles its list.
    This one keeps the given order, which is by label, then by name, so that the same images in
    another layout are the same data set.

    Args:
        root: the folder, for `data_dir`.
        splits: (path, label) pairs by split name.
        class_names: by label.
    """

    def __init__(self, root: pathlib.Path, splits: dict[str, Examples], class_names: list[str]):
        # ImageFolder.__init__ would list the folder itself; its parent's does not.
        self._image_shape = self._image_dtype = None
        super(tfds.folder_dataset.ImageFolder, self).__init__(data_dir=root)
        self._data_dir = str(root)
        self._examples = splits
        self.info.features["label"].names = class_names
        # ImageFolder.as_dataset reads these.
        self._split_examples = {
            name: [image_folder._Example(path, class_names[label]) for path, label in examples]
            for name, examples in splits.items()
        }
        self.info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.splits.SplitInfo(
                        name=name, shard_lengths=[len(examples)], num_bytes=0
                    )
                    for name, examples in splits.items()
                ]
            )
        )

    def examples(self, split: str) -> Examples:
        """The (path, label) pairs of a split, in canonical order."""
        return self._examples[split]


def build(root: pathlib.Path, on_problem: OnProblem | None = None) -> FolderBuilder:
    """Detects the layout of a folder and lists its images.

    Args:
        root: the folder.
        on_problem: called with each problem of one class or one folder, which is then skipped. By
            default the first is raised.

    Returns:
        A builder with the split 'train' and, if the folder has one, 'validation'.

    Raises:
        UsageError: no such folder, no class folders, an empty class, a single class, or a class in
            validation that train lacks.
    """
    on_problem = on_problem or _raise
    shown = text_lib.printable(str(root))
    if not root.is_dir():
        raise errors.UsageError(
            f"--dataset={shown} is neither a folder nor a known data set: expected a folder of "
            "images, 'digits', 'tiny_imagenet_100' or 'tfds:NAME'."
        )
    if original_layout.is_original_layout(root):
        logging.info(f"{shown}: the original tiny-imagenet layout")
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
            f"{shown} has no folders in it: put the images of each class into a folder named after "
            "the class."
        )
    if train_dir is None:
        logging.info(f"{shown}: one tree of class folders")
    else:
        validation = f"{validation_dir.name}/" if validation_dir else "no validation folder"
        logging.info(f"{shown}: class folders under {train_dir.name}/ and {validation}")
    train = _classes(train_dir or root, on_problem)
    if len(train) < 2:
        only = f" (only {text_lib.printable(next(iter(train)))!r})" if train else ""
        raise errors.UsageError(
            f"{text_lib.printable(str(train_dir or root))} holds {len(train)} class "
            f"folder(s){only}: a classifier needs at least two, one folder of images per class."
        )
    names = sorted(train)
    splits = {"train": _numbered(train, names)}
    if validation_dir is not None:
        validation = _validation_classes(validation_dir, names, on_problem)
        splits["validation"] = _numbered(validation, names)
    # Class folders may be named by WordNet ids, with a words.txt beside them.
    class_names = original_layout.class_names(sources.Folder(root), names)
    return FolderBuilder(root, splits, _printable_and_distinct(class_names))


def _raise(message: str) -> NoReturn:
    raise errors.UsageError(message)


def _first_split(root: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    """The first folder with one of these names, in upper or lower case, that has class folders."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    for name in names:
        if name not in folders:
            continue
        if _subfolders(folders[name]):
            return folders[name]
        shown = text_lib.printable(str(folders[name]))
        logging.info(f"note: {shown} has no class folders and is skipped")
    return None


def _subfolders(folder: pathlib.Path) -> list[os.DirEntry]:
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."]
    return sorted(entries, key=lambda entry: entry.name)


def _printable_and_distinct(names: Sequence[str]) -> list[str]:
    """Class names as valid UTF-8, numbered where two become the same."""
    texts = [os.fsencode(name).decode(errors="replace") for name in names]
    repeated = {text for text, count in collections.Counter(texts).items() if count > 1}
    return [f"{text} ({i})" if text in repeated else text for i, text in enumerate(texts)]


def _as_examples(pairs: Iterable[tuple[pathlib.PurePath, int]]) -> Examples:
    return tuple((str(path), label) for path, label in pairs)


def _numbered(classes: dict[str, list[str]], names: list[str]) -> Examples:
    labels = {name: label for label, name in enumerate(names)}
    return tuple((path, labels[name]) for name in names for path in classes.get(name, ()))


def _validation_classes(
    folder: pathlib.Path, train_names: list[str], on_problem: OnProblem
) -> dict[str, list[str]]:
    """The images of each class of a validation folder, checked against the training classes."""
    classes = _classes(folder, on_problem, may_be_empty=True)
    shown = text_lib.printable(str(folder))
    unknown = sorted(set(classes) - set(train_names))
    if unknown:
        on_problem(
            f"{shown} has the class {text_lib.printable(unknown[0])!r}, which the training folder "
            "lacks"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + ": add it to the training folder or remove it here."
        )
    if not any(classes.values()):
        on_problem(
            f"{shown} holds no images: put class folders into it, or remove it to split the "
            "training images (--validation_fraction)."
        )
    missing = [name for name in train_names if not classes.get(name)]
    if missing:
        logging.info(
            f"note: {shown} has no images of {len(missing)} class(es), e.g. "
            f"{text_lib.printable(missing[0])!r}"
        )
    return classes


def _classes(
    folder: pathlib.Path, on_problem: OnProblem, may_be_empty: bool = False
) -> dict[str, list[str]]:
    """Lists the images of each class folder and its subfolders, sorted by path.

    Hidden files and folders are skipped. Files without the suffix of an image are skipped and
    counted in a message.
    """
    classes: dict[str, list[str]] = {}
    skipped: collections.Counter[str] = collections.Counter()
    for entry in _subfolders(folder):
        images = _images(entry.path, on_problem, skipped)
        if not images and not may_be_empty:
            on_problem(
                f"the class folder {text_lib.printable(entry.path)} holds no images: add some, or "
                "remove the folder."
            )
            continue
        classes[entry.name] = images
    if skipped:
        suffixes = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
        logging.info(
            f"note: {skipped.total()} file(s) in {text_lib.printable(str(folder))} are skipped "
            f"({text_lib.printable(suffixes)})"
        )
    return classes


def _images(folder: str, on_problem: OnProblem, skipped: collections.Counter[str]) -> list[str]:
    """The sorted paths of the images of one class; counts other files in `skipped` by suffix."""

    def unreadable(error: OSError) -> None:
        path = text_lib.printable(str(error.filename))
        on_problem(f"{path} cannot be read ({error.strerror}): fix or remove it.")

    images = []
    visited: set[tuple[int, int]] = set()
    for directory, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        info = os.stat(directory)
        if (info.st_dev, info.st_ino) in visited:
            shown = text_lib.printable(directory)
            logging.info(f"note: {shown} links to a folder already listed and is not followed")
            folders.clear()
            continue
        visited.add((info.st_dev, info.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in image_check.SUFFIXES and not name.startswith("."):
                images.append(os.path.join(directory, name))
            elif not name.startswith("."):
                skipped[suffix or "no suffix"] += 1
    return sorted(images)
