"""Copies tiny-imagenet from its original layout into class folders.

    DST/train/WNID/NAME.JPEG    DST/val/WNID/NAME.JPEG    DST/wnids.txt    DST/words.txt

Files are copied byte for byte and the source is not changed. Each class folder is written under a
temporary name and renamed when complete, so a copy that was stopped resumes.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import original_layout, sources
from cnnrnn.system import atomic_files, checksummed, progress
from cnnrnn.system import text as text_lib

_LISTS = (original_layout.WORDS, original_layout.WNIDS)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a finished copy contains.

    Attributes:
        destination: the folder of class folders.
        classes: number of classes.
        train: number of training images.
        validation: number of validation images.
        copied: number of images that this call copied; the others were there before.
    """

    destination: pathlib.Path
    classes: int
    train: int
    validation: int
    copied: int

    def __str__(self) -> str:
        destination = text_lib.printable(str(self.destination))
        return (
            f"{destination}: {self.classes} classes, {self.train:,} training and "
            f"{self.validation:,} validation images ({self.copied:,} copied now).\n"
            f"Next: {text_lib.program()} phase1 --dataset={shlex.quote(str(self.destination))}"
        )


@dataclasses.dataclass(frozen=True)
class _ClassFolder:
    """A class folder to write.

    Attributes:
        path: of the folder.
        files: the path in the source and the size in bytes of each file, by file name.
    """

    path: pathlib.Path
    files: dict[str, tuple[pathlib.PurePath, int]]


def restructure(source: pathlib.Path, destination: pathlib.Path) -> Summary:
    """Copies the images of `source` into class folders below `destination`.

    Args:
        source: a folder in the original layout, or the published zip.
        destination: a new folder, or one that an earlier call from the same source has left
            incomplete.

    Raises:
        UsageError: the source is incomplete; the destination is inside it, cannot be written to, or
            holds files that are not part of this copy.
        RunError: the disk is full, or reading or writing failed otherwise.
    """
    _check_apart(source, destination)
    with original_layout.open_source(source) as opened, _os_errors_explained(destination):
        layout = original_layout.read_source(opened)
        # Validation first: classes in val/ that train/ lacks are an error in training, so an
        # incomplete copy is never taken for a smaller data set.
        folders = [
            *_class_folders(opened, destination / "val", layout.wnids, layout.validation),
            *_class_folders(opened, destination / "train", layout.wnids, layout.train),
        ]
        lists = [name for name in _LISTS if name in opened.names("")]
        _check_destination(opened, destination, folders, lists)
        for parent in (destination, destination / "train", destination / "val"):
            checksummed.clean_up(parent)
        todo = [folder for folder in folders if not folder.path.exists()]
        copied = sum(len(folder.files) for folder in todo)
        done = 0
        with progress.Progress("copying", copied, "images") as bar:
            for folder in todo:
                _copy_class(opened, folder)
                done += len(folder.files)
                bar.update(done)
        for name in lists:
            with atomic_files.replacing(destination / name) as temporary:
                opened.copy(opened.path(name), temporary)
    return Summary(
        destination=destination,
        classes=len(layout.wnids),
        train=len(layout.train),
        validation=len(layout.validation),
        copied=copied,
    )


def _check_apart(source: pathlib.Path, destination: pathlib.Path) -> None:
    """Raises UsageError if the destination is the source or inside it."""
    real_source, real_destination = source.resolve(), destination.resolve()
    if real_destination == real_source or real_source in real_destination.parents:
        raise errors.UsageError(
            f"the destination {destination} is the source or inside it: choose another folder."
        )
    if destination.exists() and not destination.is_dir():
        raise errors.UsageError(f"{destination}: is not a folder; give another name.")


def _class_folders(
    source: sources.Source,
    parent: pathlib.Path,
    wnids: Sequence[str],
    examples: Iterable[tuple[pathlib.PurePath, int]],
) -> list[_ClassFolder]:
    """The class folders of the examples of one split, without empty ones."""
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
    """Raises UsageError if the destination holds anything that is not part of this copy."""
    expected = {folder.path for folder in folders}
    expected |= {path.parent for path in expected}
    expected |= {destination / name for name in lists}
    for parent in (destination, destination / "train", destination / "val"):
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            # What a killed copy was writing is named .partial-PROCESS-NAME.
            name = re.sub(rf"^{re.escape(atomic_files.TEMPORARY)}[^-]+-", "", path.name)
            if path.with_name(name) not in expected:
                raise errors.UsageError(
                    f"{path}: was not written by this command; move it elsewhere, or give an empty "
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
                f"{path}: differs from that of the source; delete it and run the command again, "
                "or give an empty folder."
            )


def _is_complete(folder: _ClassFolder) -> bool:
    """Whether a folder holds the files of the source, judged by names and sizes."""
    if not folder.path.is_dir():
        return False
    with os.scandir(folder.path) as entries:
        present = {entry.name: entry.stat().st_size for entry in entries}
    return present == {name: size for name, (_, size) in folder.files.items()}


def _copy_class(source: sources.Source, folder: _ClassFolder) -> None:
    """Writes one class folder, under a temporary name until it is complete."""
    temporary = folder.path.with_name(f"{atomic_files.temporary_prefix()}{folder.path.name}")
    try:
        temporary.mkdir(parents=True)
        for name, (path, _) in folder.files.items():
            source.copy(path, temporary / name)
        if not _is_complete(dataclasses.replace(folder, path=temporary)):
            raise errors.RunError(
                f"{folder.path}: files of its copy were removed or changed meanwhile; see whether "
                "another process copies to this folder, then run the command again."
            )
        temporary.rename(folder.path)
    finally:
        # On failure: it must not take up space on a full disk.
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _os_errors_explained(destination: pathlib.Path) -> Iterator[None]:
    """Turns errors of the operating system into one sentence."""
    try:
        yield
    except OSError as error:
        where = error.filename or destination
        if error.errno in _NO_SPACE:
            raise errors.RunError(
                f"{destination}: the disk is full; free some space and run the command again, "
                "which resumes."
            ) from error
        if error.errno in _NOT_ALLOWED:
            raise errors.UsageError(
                f"{where}: no permission ({error.strerror}); give a folder that can be read, and a "
                "destination that can be written to."
            ) from error
        raise errors.RunError(f"{where}: {error.strerror or error}.") from error
