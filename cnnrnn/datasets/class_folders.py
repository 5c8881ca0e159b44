"""Lists the images of class folders: one class per folder, or one per folder at any depth."""

import collections
import os
import pathlib
from collections.abc import Callable, Iterator

from absl import logging

from cnnrnn.datasets import image_check
from cnnrnn.system import text as text_lib

OnProblem = Callable[[str], None]
# By class: the path of each image below the class folder, and its whole path; sorted.
Classes = dict[str, list[tuple[str, str]]]


def subfolders(folder: pathlib.Path) -> list[os.DirEntry]:
    """The folders in a folder that are not hidden, sorted by name."""
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."]
    return sorted(entries, key=lambda entry: entry.name)


def read(
    folder: pathlib.Path, separator: str, on_problem: OnProblem, may_be_empty: bool = False
) -> Classes:
    """Lists the images of each class.

    Hidden files and folders are skipped. Files without the suffix of an image are skipped and
    counted in a message.

    Args:
        folder: of the class folders.
        separator: '': the classes are the folders in `folder`, and deeper folders belong to them.
            Otherwise every folder below `folder` with images in it is a class, named by its path
            with this separator.
        on_problem: called with each problem of one class or one folder, which is then skipped.
        may_be_empty: whether a class folder without images is accepted.
    """
    skipped: collections.Counter[str] = collections.Counter()
    if separator:
        classes = _nested(folder, separator, on_problem, may_be_empty, skipped)
    else:
        classes = _flat(folder, on_problem, may_be_empty, skipped)
    if skipped:
        suffixes = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
        logging.info(
            f"note: {skipped.total()} file(s) in {text_lib.printable(str(folder))} are skipped "
            f"({text_lib.printable(suffixes)})"
        )
    return classes


def _flat(
    folder: pathlib.Path,
    on_problem: OnProblem,
    may_be_empty: bool,
    skipped: collections.Counter[str],
) -> Classes:
    classes: Classes = {}
    for entry in subfolders(folder):
        paths = sorted(
            os.path.join(directory, name)
            for directory, _, names in _walk(entry.path, on_problem, skipped)
            for name in names
        )
        if paths or may_be_empty:
            classes[entry.name] = [(path[len(entry.path) + 1 :], path) for path in paths]
        else:
            _report_empty(entry.path, on_problem)
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
        for directory, folders, names in _walk(entry.path, on_problem, skipped):
            class_name = separator.join(pathlib.Path(directory).relative_to(folder).parts)
            if not names:
                if not folders and not may_be_empty:
                    _report_empty(directory, on_problem)
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
    return classes


def _report_empty(folder: str, on_problem: OnProblem) -> None:
    on_problem(
        f"the class folder {text_lib.printable(folder)} holds no images: add some, or remove the "
        "folder."
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
        skipped: counts other files by suffix.
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
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = []
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in image_check.SUFFIXES and not name.startswith("."):
                images.append(name)
            elif not name.startswith("."):
                skipped[suffix or "no suffix"] += 1
        yield directory, folders, images
