"""A TFDS builder of image files; of folders of images, each in any of three layouts.

ROOT/train/CLASS/*, ROOT/val/CLASS/*   split by the user (val, valid, validation or test)
ROOT/CLASS/*                           one tree; `dataset.load` splits it
the original tiny-imagenet layout      see data/tiny_imagenet_100/original_layout.py

Several folders are merged by class name, as if their files were copied into one folder.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

import tensorflow_datasets as tfds
from absl import logging

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import original_layout, sources
from cnnrnn.datasets import class_folders
from cnnrnn.system import text as text_lib

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", "testing")
_OTHERS = (*VALIDATION_NAMES, *TEST_NAMES)  # the first one is used for validation
_SPLITS = (*TRAIN_NAMES, *_OTHERS)
_SHOWN = 5  # folders in a message

OnProblem = class_folders.OnProblem
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

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        # TensorFlow Datasets would create a temporary folder, and leave it.
        info.initialize_from_bucket = lambda: None
        return info

    def __init__(self, root: pathlib.Path, splits: dict[str, Examples], class_names: list[str]):
        # ImageFolder.__init__ would list the folder itself; its parent's does not.
        self._image_shape = self._image_dtype = None
        super(tfds.folder_dataset.ImageFolder, self).__init__(data_dir=root)
        self._data_dir = str(root)
        self._examples = splits
        self.info.features["label"].names = class_names
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


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The images of one folder.

    Attributes:
        shown: the folder of the training classes, for messages.
        train: the training images by class.
        validation: the validation images by class; None if the folder has none.
        names: what each class is called, if not by its folder.
    """

    shown: str
    train: class_folders.Classes
    validation: class_folders.Classes | None
    names: dict[str, str]


def build(
    roots: Sequence[pathlib.Path],
    on_problem: OnProblem | None = None,
    separator: str = "",
    is_test: bool = False,
) -> FolderBuilder:
    """Detects the layout of each folder and lists the images.

    Args:
        roots: the folders. If any has a validation split, those without train on all their images.
        on_problem: called with each problem of one class or one folder, which is then skipped. By
            default the first is raised.
        separator: see `class_folders.read`.
        is_test: whether these are images of --test_dataset. They may be of one class, and beside
            train/ only those of test/ are listed, or else of val/.

    Returns:
        A builder with the split 'train' and, if a folder has one and `is_test` is False,
        'validation'.

    Raises:
        UsageError: no such folder, no class folders, an empty class, a single class, or a class in
            validation that train lacks.
    """
    on_problem = on_problem or raise_problem
    _check_folders(roots)
    folders = [_read(root, separator, on_problem, is_test) for root in roots]
    train = class_folders.merged([folder.train for folder in folders])
    if len(train) < (1 if is_test else 2):
        only = f" (only {text_lib.printable(next(iter(train)))!r})" if train else ""
        report = on_problem if train else raise_problem
        report(
            f"{' and '.join(folder.shown for folder in folders)} holds images of {len(train)} "
            f"class(es){only}: a classifier needs at least two, one folder of images per class."
        )
    names = sorted(train)
    splits = {"train": _numbered(train, names)}
    validation = [folder.validation for folder in folders if folder.validation is not None]
    if validation:
        splits["validation"] = _numbered(
            _validation(class_folders.merged(validation), names, on_problem), names
        )
    words = {name: word for folder in reversed(folders) for name, word in folder.names.items()}
    class_names = printable_and_distinct([words.get(name, name) for name in names])
    return FolderBuilder(roots[0], splits, class_names)


def raise_problem(message: str) -> NoReturn:
    """Raises UsageError: what an `on_problem` does by default."""
    raise errors.UsageError(message)


def _check_folders(roots: Sequence[pathlib.Path]) -> None:
    for root in roots:
        shown = text_lib.printable(str(root))
        if not root.is_dir() and len(roots) > 1:
            raise errors.UsageError(
                f"{shown} is not a folder: --dataset names {len(roots)} folders, separated by "
                "commas."
            )
        if not root.is_dir():
            raise errors.UsageError(
                f"--dataset={shown} is neither a folder nor a known data set: expected a folder of "
                "images, a .csv or .jsonl file, 'photos', 'digits', 'digit_stacks', "
                "'tiny_imagenet_100' or 'tfds:NAME'."
            )
    if len({root.resolve() for root in roots}) < len(roots):
        raise errors.UsageError("--dataset names the same folder twice: give each folder once.")


def _read(root: pathlib.Path, separator: str, on_problem: OnProblem, is_test: bool) -> _Folder:
    """Lists the images of one folder."""
    shown = text_lib.printable(str(root))
    if original_layout.is_original_layout(root):
        logging.info(f"{shown}: the original tiny-imagenet layout")
        layout = original_layout.read(root)
        names = dict(zip(layout.wnids, layout.class_names, strict=True))
        validation = _by_wnid(layout.wnids, layout.validation)
        if is_test:
            return _Folder(shown, validation, None, names)
        return _Folder(shown, _by_wnid(layout.wnids, layout.train), validation, names)
    reported: list[str] = []
    train_dir, validation_dir = _first_split(root, TRAIN_NAMES, reported), None
    if train_dir is not None:
        names = (*TEST_NAMES, *VALIDATION_NAMES) if is_test else _OTHERS
        other = _first_split(root, names, reported, train_dir)
        train_dir, validation_dir = (other or train_dir, None) if is_test else (train_dir, other)
    others = [
        entry.name
        for entry in class_folders.subfolders(root)
        if train_dir
        and pathlib.Path(entry.path) not in (train_dir, validation_dir)
        and entry.name not in reported
    ]
    if others:
        names = text_lib.printable(", ".join(others[:_SHOWN]))
        logging.info(
            f"note: {shown} has {train_dir.name}/, so these folders are ignored: {names}"
            f"{', ...' if others[_SHOWN:] else ''}"
        )
    if train_dir is None and not class_folders.subfolders(root):
        raise errors.UsageError(
            f"{shown} has no folders in it: put the images of each class into a folder named after "
            "the class."
        )
    if train_dir is None:
        _check_not_splits(root)
        logging.info(f"{shown}: one folder per class")
    else:
        validation = f"{validation_dir.name}/" if validation_dir else "no validation folder"
        beside = "" if is_test else f" and {validation}"
        logging.info(f"{shown}: class folders under {train_dir.name}/{beside}")
    train = class_folders.read(train_dir or root, separator, on_problem, may_be_empty=is_test)
    validation = None
    if validation_dir is not None:
        validation = class_folders.read(validation_dir, separator, on_problem, may_be_empty=True)
        if not any(validation.values()):
            on_problem(
                f"{text_lib.printable(str(validation_dir))} holds no images: put class folders "
                "into it, or remove it to split the training images (--validation_fraction)."
            )
    names = words(root, train)
    return _Folder(text_lib.printable(str(train_dir or root)), train, validation, names)


def words(root: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
    """The words for class folders that are all named by WordNet ids, from words.txt in a folder."""
    ids = list(names)
    if not all(re.fullmatch(r"n\d{8}", name) for name in ids):
        return {}
    found = original_layout.class_names(sources.Folder(root), ids)
    return {name: word for name, word in zip(ids, found, strict=True) if word != name}


def _first_split(
    root: pathlib.Path,
    names: tuple[str, ...],
    reported: list[str],
    train_dir: pathlib.Path | None = None,
) -> pathlib.Path | None:
    """The first folder with one of these names, in upper or lower case, that has class folders.

    Args:
        root: where it is.
        names: in order.
        reported: gets the names of folders that are noted as not used.
        train_dir: of the training images. The only folder in test/ must be one of their classes:
            test images without labels are often in one folder.
    """
    folders: dict[str, pathlib.Path] = {}
    for path in sorted(root.iterdir()):
        if path.is_dir() and (other := folders.setdefault(path.name.lower(), path)) != path:
            if path.name.lower() in names:
                raise errors.UsageError(
                    f"{text_lib.printable(str(root))} has {other.name}/ and {path.name}/: rename "
                    "or merge them."
                )
    for name in names:
        if name not in folders:
            continue
        classes = _names_in(folders[name])
        is_unlabelled = (
            train_dir is not None
            and name in TEST_NAMES
            and len(classes) == 1
            and classes.isdisjoint(_names_in(train_dir))
        )
        if classes and not is_unlabelled:
            return folders[name]
        shown = text_lib.printable(str(folders[name]))
        what = "only one folder, which is no class of the training images"
        logging.info(
            f"note: {shown} contains {what if classes else 'no class folders'}, so it is not used "
            "as a split"
        )
        reported.append(folders[name].name)
    return None


def _names_in(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in class_folders.subfolders(folder)}


def _check_not_splits(root: pathlib.Path) -> None:
    """Raises UsageError if class folders are named like splits."""
    folders = [entry.name for entry in class_folders.subfolders(root)]
    only_splits = len(folders) > 1 and {name.lower() for name in folders} <= {*_SPLITS}
    if only_splits or _without(TRAIN_NAMES, folders) & _without(_OTHERS, folders):
        names = text_lib.printable(", ".join(folders[:_SHOWN]))
        raise errors.UsageError(
            f"{text_lib.printable(str(root))} holds the folders {names}, which are named like "
            "splits, but are not train/CLASS/* and val/CLASS/*: name them train and val, and put "
            "the images of each class into a folder in them. If they are classes, rename them."
        )


def _without(words: Sequence[str], names: Sequence[str]) -> set[str]:
    """What is left of names that contain one of the words: of train_images, _images."""
    lower = [name.lower() for name in names]
    return {name.replace(word, "", 1) for name in lower for word in words if word in name}


def printable_and_distinct(names: Sequence[str]) -> list[str]:
    """Class names as valid UTF-8, numbered where two become the same."""
    texts = [os.fsencode(name).decode(errors="replace") for name in names]
    repeated = {text for text, count in collections.Counter(texts).items() if count > 1}
    return [f"{text} ({i})" if text in repeated else text for i, text in enumerate(texts)]


def _by_wnid(
    wnids: Sequence[str], examples: Sequence[tuple[pathlib.PurePath, int]]
) -> class_folders.Classes:
    classes: class_folders.Classes = {wnid: [] for wnid in wnids}
    for path, label in examples:
        classes[wnids[label]].append((path.name, str(path)))
    return classes


def _numbered(classes: class_folders.Classes, names: list[str]) -> Examples:
    labels = {name: label for label, name in enumerate(names)}
    return tuple((path, labels[name]) for name in names for _, path in classes.get(name, ()))


def _validation(
    classes: class_folders.Classes, train_names: list[str], on_problem: OnProblem
) -> class_folders.Classes:
    """The validation images, checked against the training classes."""
    unknown = sorted(set(classes) - set(train_names))
    if unknown:
        class_folders.report_similar({*unknown, *train_names})
        image = next((text_lib.printable(path) for _, path in classes[unknown[0]]), "")
        on_problem(
            f"the validation folder has the class {text_lib.printable(unknown[0])!r}, which the "
            "training folder lacks"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + (f", e.g. {image}" if image else "")
            + ": add it to the training folder or remove it here."
        )
    missing = [name for name in train_names if not classes.get(name)]
    if missing:
        logging.info(
            f"note: the validation folder has no images of {len(missing)} class(es), e.g. "
            f"{text_lib.printable(missing[0])!r}"
        )
    return classes
