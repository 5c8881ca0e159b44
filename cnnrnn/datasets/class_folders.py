"""Lists the images of class folders: one class per folder, or one per folder at any depth."""

import collections
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import logging

from cnnrnn.data.tiny_imagenet_100 import original_layout
from cnnrnn.datasets import image_check
from cnnrnn.system import text as text_lib

OnProblem = Callable[[str], None]
# By class: the path of each image below the class folder, and its whole path; sorted.
Classes = dict[str, list[tuple[str, str]]]


def subfolders(folder: pathlib.Path) -> list[os.DirEntry]:
    """The folders in a folder that are not skipped, sorted by name."""
    entries = [entry for entry in os.scandir(folder) if _is_folder(entry) and _is_read(entry.name)]
    return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_read(folder: str) -> bool:
    """Whether a folder of this name is not skipped."""
    return not folder.startswith(".") and folder not in original_layout.SYSTEM_FOLDERS


def read(
    folder: pathlib.Path, separator: str, on_problem: OnProblem, may_be_empty: bool = False
) -> Classes:
    """Lists the images of each class.

    Hidden files and folders are skipped. Files without the suffix of an image and folders that a
    system has added are skipped and counted in a message, and so are images outside the class
    folders and links to nothing there.

    Args:
        folder: of the class folders.
        separator: '': the classes are the folders in `folder`, and deeper folders belong to them.
            Otherwise every folder below `folder` with images in it is a class, named by its path
            with this separator.
        on_problem: called with each problem of one class or one folder, which is then skipped.
        may_be_empty: whether a class folder without images is accepted.
    """
    skipped = _beside_classes(folder)
    if separator:
        classes = _nested(folder, separator, on_problem, may_be_empty, skipped)
    else:
        classes = _flat(folder, on_problem, may_be_empty, skipped)
    if skipped:
        logging.info(
            f"note: {skipped.total()} file(s) or folder(s) in {text_lib.printable(str(folder))} "
            f"are skipped ({_counts(skipped)})"
        )
    return classes


def _beside_classes(folder: pathlib.Path) -> collections.Counter[str]:
    """Counts what is skipped beside the class folders, except for files like a README."""
    skipped: collections.Counter[str] = collections.Counter()
    for entry in os.scandir(folder):
        if entry.name in original_layout.SYSTEM_FOLDERS:
            skipped[entry.name] += 1
        elif entry.name.startswith(".") or _is_folder(entry):
            continue
        elif not os.path.exists(entry.path):
            skipped["broken link(s)"] += 1
        elif _suffix(entry.name) in image_check.SUFFIXES:
            skipped["image(s) outside the class folders"] += 1
    return skipped


def _counts(skipped: collections.Counter[str]) -> str:
    return text_lib.printable(", ".join(f"{n} {what}" for what, n in skipped.most_common(5)))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _flat(
    folder: pathlib.Path,
    on_problem: OnProblem,
    may_be_empty: bool,
    skipped: collections.Counter[str],
) -> Classes:
    classes: Classes = {}
    for entry in subfolders(folder):
        others: collections.Counter[str] = collections.Counter()
        paths = sorted(
            os.path.join(directory, name)
            for directory, _, names in _walk(entry.path, on_problem, others)
            for name in names
        )
        skipped.update(others)
        if paths or may_be_empty:
            classes[entry.name] = [(path[len(entry.path) + 1 :], path) for path in paths]
        else:
            _report_empty(entry.path, others, on_problem)
    return classes


def _nested(
    folder: pathlib.Path,
    separator: str,
    on_problem: OnProblem,
    may_be_empty: bool,
    skipped: collections.Counter[str],
) -> Classes:
    classes: Classes = {}
    directories: dict[str, str] = {}
    for entry in subfolders(folder):
        others: collections.Counter[str] = collections.Counter()  # of one directory
        for directory, folders, names in _walk(entry.path, on_problem, others):
            class_name = separator.join(pathlib.Path(directory).relative_to(folder).parts)
            if not names:
                if not folders and not may_be_empty:
                    _report_empty(directory, others, on_problem)
            elif class_name in classes:
                on_problem(
                    f"{text_lib.printable(directories[class_name])} and "
                    f"{text_lib.printable(directory)} give the same class name "
                    f"{text_lib.printable(class_name)!r}: give another --class_separator."
                )
            else:
                directories[class_name] = directory
                classes[class_name] = [
                    (name, os.path.join(directory, name)) for name in sorted(names)
                ]
            skipped.update(others)
            others.clear()
    return classes


def _report_empty(folder: str, others: collections.Counter[str], on_problem: OnProblem) -> None:
    found = f" but {_counts(others)}" if others else ""
    on_problem(
        f"the class folder {text_lib.printable(folder)} holds no images{found}: add some "
        f"({', '.join(image_check.DECODABLE_SUFFIXES)}), or remove the folder."
    )


def merged(parts: Sequence[Classes]) -> Classes:
    """The images of each class in all parts, sorted by their paths below the class folder.

    Images with the same path there keep the order of the parts.
    """
    if len(parts) == 1:
        return parts[0]
    names = {name for part in parts for name in part}
    return {
        name: sorted(
            (image for part in parts for image in part.get(name, ())), key=lambda image: image[0]
        )
        for name in names
    }


def report_similar(names: Iterable[str]) -> None:
    """Prints a note of class names that look like one name stored in several ways."""
    similar: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        similar[unicodedata.normalize("NFC", name).casefold()].append(name)
    groups = [group for group in similar.values() if len(group) > 1]
    if groups:
        shown = " and ".join(repr(text_lib.printable(name)) for name in groups[0])
        logging.info(
            f"note: {len(groups)} class name(s) differ only in letter case or in how accents are "
            f"stored, e.g. {shown}: merge them if they are one class"
        )


def _walk(
    folder: str, on_problem: OnProblem, skipped: collections.Counter[str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """`walk`, with its errors as problems."""

    def unreadable(error: OSError) -> None:
        path = text_lib.printable(str(error.filename))
        on_problem(f"{path} cannot be read ({error.strerror}): fix or remove it.")

    return walk(folder, unreadable, skipped)


def walk(
    folder: str, unreadable: Callable[[OSError], None], skipped: collections.Counter[str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (folder, folders in it, images in it) for a folder and those below; follows links.

    Args:
        folder: where to begin.
        unreadable: called for each folder that cannot be read.
        skipped: counts other files by suffix, and folders that a system has added by name.
    """
    visited: set[tuple[int, int]] = set()
    for directory, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        info = os.stat(directory)
        if (info.st_dev, info.st_ino) in visited:
            shown = text_lib.printable(directory)
            logging.info(f"note: {shown} links to a folder already listed and is not followed")
            folders.clear()
            continue
        visited.add((info.st_dev, info.st_ino))
        skipped.update(name for name in folders if name in original_layout.SYSTEM_FOLDERS)
        folders[:] = sorted(filter(_is_read, folders))
        images = []
        for name in files:
            suffix = _suffix(name)
            if suffix in image_check.SUFFIXES and not name.startswith("."):
                images.append(name)
            elif not name.startswith("."):
                skipped[suffix or "no suffix"] += 1
        yield directory, folders, images
