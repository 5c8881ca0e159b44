"""Copies tiny-imagenet from the layout in which it is published into class folders.

    DST/train/WNID/NAME.JPEG    DST/val/WNID/NAME.JPEG    DST/wnids.txt    DST/words.txt

Files are copied byte for byte and the source is left alone. A class appears under its name only
when it is whole, so a copy that was stopped goes on where it was when it is started again.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import original_layout, sources
from cnnrnn.system import progress

_TEMPORARY_SUFFIX = ".partial"
_LISTS = (original_layout.WORDS, original_layout.WNIDS)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in the destination now.

    Attributes:
        destination: The folder of class folders.
        classes: The number of classes.
        train: The number of training images.
        validation: The number of validation images.
        copied: How many of the images this call copied; the others were there.
    """

    destination: pathlib.Path
    classes: int
    train: int
    validation: int
    copied: int

    def __str__(self) -> str:
        return (
            f"{self.destination}: {self.classes} classes, {self.train:,} training and "
            f"{self.validation:,} validation images ({self.copied:,} copied now).\n"
            f"Next: ./run.sh phase1 --dataset={self.destination}"
        )


@dataclasses.dataclass(frozen=True)
class _ClassFolder:
    """One folder to make: its final path, and the source's path and size of each file in it."""

    path: pathlib.Path
    files: dict[str, tuple[pathlib.PurePath, int]]


def restructure(source: pathlib.Path, destination: pathlib.Path) -> Summary:
    """Copies the images of `source` into class folders below `destination`.

    Prints the rate and the time left while it copies, on a terminal, and the summary at the end.

    Args:
        source: A folder in the original layout, or the published zip.
        destination: The folder to make, or one that an earlier call has begun to make from the
            same source.

    Returns:
        What is in the destination now.

    Raises:
        UsageError: The source is not whole; the destination lies within it, may not be written
            to, or holds what this command would not have put there.
        RunError: The disk is full, or reading or writing failed otherwise.
    """
    _check_apart(source, destination)
    with original_layout.open_source(source) as opened, _os_errors_explained(destination):
        layout = original_layout.read_source(opened)
        # Validation first: class folders under val/ that train/ does not have yet are an error
        # wherever they are trained on, so a half-done copy is never taken for a smaller data set.
        folders = [
            *_class_folders(opened, destination / "val", layout.wnids, layout.validation),
            *_class_folders(opened, destination / "train", layout.wnids, layout.train),
        ]
        lists = [name for name in _LISTS if name in opened.names("")]
        _check_destination(opened, destination, folders, lists)
        todo = [folder for folder in folders if not folder.path.exists()]
        copied = sum(len(folder.files) for folder in todo)
        done = 0
        with progress.Progress("copying", copied, "images") as bar:
            for folder in todo:
                _copy_class(opened, folder)
                done += len(folder.files)
                bar.update(done)
        for name in lists:
            _copy_list(opened, destination, name)
    summary = Summary(
        destination=destination,
        classes=len(layout.wnids),
        train=len(layout.train),
        validation=len(layout.validation),
        copied=copied,
    )
    print(summary)
    return summary


def _check_apart(source: pathlib.Path, destination: pathlib.Path) -> None:
    """Refuses a destination that is the source or within it."""
    real_source, real_destination = source.resolve(), destination.resolve()
    if real_destination == real_source or real_source in real_destination.parents:
        raise errors.UsageError(
            f"{destination}: is the source or within it, and the source is never written to; "
            "give another folder."
        )
    if destination.exists() and not destination.is_dir():
        raise errors.UsageError(f"{destination}: is not a folder; give another name.")


def _class_folders(
    source: sources.Source,
    parent: pathlib.Path,
    wnids: Sequence[str],
    examples: Iterable[tuple[pathlib.PurePath, int]],
) -> list[_ClassFolder]:
    """Returns the class folders that hold the examples, those without any left out."""
    files: list[dict[str, tuple[pathlib.PurePath, int]]] = [{} for _ in wnids]
    for path, label in examples:
        files[label][path.name] = (path, source.size(path))
    return [
        _ClassFolder(parent / wnid, of_class)
        for wnid, of_class in zip(wnids, files, strict=True)
        if of_class
    ]


def _check_destination(
    source: sources.Source,
    destination: pathlib.Path,
    folders: Sequence[_ClassFolder],
    lists: Sequence[str],
) -> None:
    """Refuses a destination that holds anything but a part of this very copy."""
    expected = {folder.path for folder in folders}
    expected |= {path.parent for path in expected}
    expected |= {destination / name for name in lists}
    expected |= {_temporary(path) for path in expected}
    for parent in (destination, destination / "train", destination / "val"):
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            if path not in expected:
                raise errors.UsageError(
                    f"{path}: was not put there by this command; move it away, or give an empty "
                    "folder."
                )
    for folder in folders:
        if folder.path.exists() and not _is_complete(folder):
            raise errors.UsageError(
                f"{folder.path}: differs from the source in its files or their sizes; delete it "
                "and run the command again, or give an empty folder."
            )
    for name in lists:
        path = destination / name
        if path.exists() and path.read_bytes() != source.read_bytes(source.path(name)):
            raise errors.UsageError(
                f"{path}: differs from the source's; delete it and run the command again, or give "
                "an empty folder."
            )


def _is_complete(folder: _ClassFolder) -> bool:
    """Returns whether the folder holds the files of the source, to judge by names and sizes."""
    if not folder.path.is_dir():
        return False
    with os.scandir(folder.path) as entries:
        present = {entry.name: entry.stat().st_size for entry in entries}
    return present == {name: size for name, (_, size) in folder.files.items()}


def _copy_class(source: sources.Source, folder: _ClassFolder) -> None:
    """Makes one class folder, under a temporary name until it is whole."""
    temporary = _temporary(folder.path)
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        temporary.mkdir(parents=True)
        for name, (path, _) in folder.files.items():
            source.copy(path, temporary / name)
        temporary.rename(folder.path)
    finally:
        # Gone by its final name if all went well; else it must not take up a full disk.
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_list(source: sources.Source, destination: pathlib.Path, name: str) -> None:
    """Copies one of the lists, under a temporary name until it is whole."""
    path = destination / name
    temporary = _temporary(path)
    try:
        source.copy(source.path(name), temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: pathlib.Path) -> pathlib.Path:
    # The dot keeps whoever lists class folders from taking it for one.
    return path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")


@contextlib.contextmanager
def _os_errors_explained(destination: pathlib.Path) -> Iterator[None]:
    """Turns what the operating system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        where = error.filename or destination
        if error.errno in _NO_SPACE:
            raise errors.RunError(
                f"{destination}: the disk is full; make room and run the command again, it goes on "
                "where it stopped."
            ) from error
        if error.errno in _NOT_ALLOWED:
            raise errors.UsageError(
                f"{where}: no permission ({error.strerror}); give a folder that can be read, and a "
                "destination that can be written to."
            ) from error
        raise errors.RunError(f"{where}: {error.strerror or error}.") from error
