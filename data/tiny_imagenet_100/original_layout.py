"""The original layout of tiny-imagenet, which only this module knows.

    TOP/wnids.txt                      one class id (a WordNet id) per line
    TOP/words.txt                      id, tab, the words for it (for all of WordNet)
    TOP/train/WNID/images/NAME.JPEG    the training images of one class
    TOP/val/images/NAME.JPEG           the validation images of all classes
    TOP/val/val_annotations.txt        name, class id and a box for each of them, between tabs
    TOP/test/...                       images without labels, never read here

A source is a folder (TOP itself) or the published zip; see `sources`.

The order of the examples is part of the contract: labels are indices into the sorted class ids, and
examples are sorted by label, then by file name. The same images in class folders have this order.
"""

import collections
import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from cnnrnn import errors

from . import sources

WNIDS = "wnids.txt"
WORDS = "words.txt"
ANNOTATIONS = "val/val_annotations.txt"

# The published images are JPEGs. The suffixes of all image formats are in datasets/image_check.py,
# which `tfds build` does not need and this package therefore does not import.
_JPEG_SUFFIXES = (".jpeg", ".jpg")
# The first is used to find the top folder of an archive.
_REQUIRED = (ANNOTATIONS, WNIDS, "train/", "val/images/")
# What file servers, macOS and Windows add to folders: thumbnails, copies, deleted files.
SYSTEM_FOLDERS = (
    "@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found",
)  # fmt: skip
# These and hidden files and folders are skipped.
_CLUTTER = frozenset({"Thumbs.db", "desktop.ini", *SYSTEM_FOLDERS})


@dataclasses.dataclass(frozen=True)
class OriginalLayout:
    """The classes and images of a source, in canonical order.

    Attributes:
        wnids: the class ids, sorted; a label is an index into them.
        class_names: by label, all different.
        train: path and label of each training image, sorted by label, then by file name.
        validation: the same for the validation images.
    """

    wnids: tuple[str, ...]
    class_names: tuple[str, ...]
    train: tuple[tuple[pathlib.PurePath, int], ...]
    validation: tuple[tuple[pathlib.PurePath, int], ...]


@contextlib.contextmanager
def open_source(path: pathlib.Path) -> Iterator[sources.Source]:
    """Opens a folder or a zip in the original layout.

    Args:
        path: of the folder with wnids.txt, train/ and val/, or of the archive.

    Yields:
        A source for `read_source`.

    Raises:
        UsageError: the path does not exist, or is an archive that `sources.Archive` refuses.
    """
    if path.is_file():
        with sources.Archive(path, _REQUIRED) as archive:
            yield archive
    else:
        yield sources.Folder(path)


def is_original_layout(root: pathlib.Path) -> bool:
    """Whether a folder has the original layout, rather than plain class folders.

    Not everything that `read` requires is checked: an incomplete folder is still recognised, and
    `read` reports what is missing.
    """
    train, val = root / "train", root / "val"
    if not (root / ANNOTATIONS).is_file() or not train.is_dir():
        return False
    folders = [f for f in train.iterdir() if f.is_dir() and not _is_clutter(f.name)]
    if not (val / "images").is_dir() and any((val / folder.name).is_dir() for folder in folders):
        return False  # sorted into class folders, as scripts do that leave the annotations
    return any((folder / "images").is_dir() for folder in folders)


def read(root: pathlib.Path, wnids: Sequence[str] | None = None) -> OriginalLayout:
    """`read_source` for an unpacked folder. Paths are those of the files."""
    return read_source(sources.Folder(root), wnids)


def read_source(source: sources.Source, wnids: Sequence[str] | None = None) -> OriginalLayout:
    """Lists the images of a source and checks them against its own lists.

    wnids.txt is required although train/ has the classes too: without it a missing class folder
    would not be noticed.

    Args:
        source: the folder or the archive.
        wnids: the class ids to read, in any order; by default all of wnids.txt.

    Raises:
        UsageError: a list is missing or malformed, or the images differ from the lists. The message
            names the file or folder.
    """
    listed = _read_wnids(source)
    chosen = tuple(sorted(listed if wnids is None else set(wnids)))
    absent = [wnid for wnid in chosen if wnid not in listed]
    if absent:
        raise errors.UsageError(
            f"{source.where(WNIDS)}: lacks {_some(absent)}; use an archive that has these classes."
        )
    return OriginalLayout(
        wnids=chosen,
        class_names=class_names(source, chosen),
        train=_read_train(source, listed, chosen),
        validation=_read_validation(source, listed, chosen),
    )


def class_names(source: sources.Source, wnids: Sequence[str]) -> tuple[str, ...]:
    """The words for each class from words.txt, or its id; all different.

    Also used for class folders that are named by ids and have a words.txt beside them.
    """
    words: dict[str, str] = {}
    if WORDS in source.names(""):
        for line in _read_lines(source, WORDS):
            wnid, _, text = line.partition("\t")
            words.setdefault(wnid, text.strip())
    names = [words.get(wnid) or wnid for wnid in wnids]
    counts = collections.Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def _read_wnids(source: sources.Source) -> frozenset[str]:
    """All class ids in wnids.txt."""
    lines = [line.strip() for line in _read_lines(source, WNIDS) if line.strip()]
    for wnid in lines:
        if not _is_plain(wnid):
            raise errors.UsageError(
                f"{source.where(WNIDS)}: {wnid!r} is not a class id; put one id on each line."
            )
    twice = [wnid for wnid, count in collections.Counter(lines).items() if count > 1]
    if twice:
        raise errors.UsageError(
            f"{source.where(WNIDS)}: lists {_some(twice)} twice; list each id once."
        )
    if not lines:
        raise errors.UsageError(f"{source.where(WNIDS)}: is empty; restore it from the archive.")
    return frozenset(lines)


def _read_train(
    source: sources.Source, listed: Iterable[str], chosen: Sequence[str]
) -> tuple[tuple[pathlib.PurePath, int], ...]:
    """Path and label of the training images of the chosen classes."""
    folders = [name for name in source.names("train") if not _is_clutter(name)]
    missing = sorted(set(chosen) - set(folders))
    if missing:
        raise errors.UsageError(
            f"{source.where('train')}: lacks the folder of {_some(missing)}, which {WNIDS} lists; "
            "restore it from the archive."
        )
    unknown = sorted(set(folders) - set(listed))
    if unknown:
        raise errors.UsageError(
            f"{source.where('train')}: holds {_some(unknown)}, which {WNIDS} does not list; "
            "remove it or add it to the list."
        )
    examples = []
    for label, wnid in enumerate(chosen):
        folder = f"train/{wnid}/images"
        names = _images(source, folder)
        if not names:
            raise errors.UsageError(
                f"{source.where(folder)}: holds no images; restore it from the archive."
            )
        examples += [(source.path(f"{folder}/{name}"), label) for name in names]
    return tuple(examples)


def _read_validation(
    source: sources.Source, listed: Iterable[str], chosen: Sequence[str]
) -> tuple[tuple[pathlib.PurePath, int], ...]:
    """Path and label of the validation images of the chosen classes."""
    wnid_of = _read_annotations(source, listed)
    images = set(_images(source, "val/images"))
    missing = sorted(set(wnid_of) - images)
    if missing:
        raise errors.UsageError(
            f"{source.where('val/images')}: lacks {_some(missing)}, which {ANNOTATIONS} lists; "
            "restore it from the archive."
        )
    unknown = sorted(images - set(wnid_of))
    if unknown:
        raise errors.UsageError(
            f"{source.where('val/images')}: holds {_some(unknown)}, which {ANNOTATIONS} does not "
            "list; remove it or add a line for it."
        )
    label_of = {wnid: label for label, wnid in enumerate(chosen)}
    labelled = [(label_of[wnid], name) for name, wnid in wnid_of.items() if wnid in label_of]
    return tuple((source.path(f"val/images/{name}"), label) for label, name in sorted(labelled))


def _read_annotations(source: sources.Source, listed: Iterable[str]) -> dict[str, str]:
    """The class id of each validation image, by file name."""
    wnids = frozenset(listed)
    wnid_of: dict[str, str] = {}
    for number, line in enumerate(_read_lines(source, ANNOTATIONS), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        problem = None
        # The box after the first two fields is not used, but an incomplete one is a damaged line.
        if len(fields) not in (2, 6) or not _is_plain(fields[0]):
            problem = "is not a file name, a class id and a box, separated by tabs"
        elif fields[1] not in wnids:
            problem = f"names the class {fields[1]!r}, which {WNIDS} does not list"
        elif fields[0] in wnid_of:
            problem = f"lists {fields[0]!r} for the second time"
        if problem:
            raise errors.UsageError(
                f"{source.where(ANNOTATIONS)}: line {number} {problem}; restore it from the "
                "archive."
            )
        wnid_of[fields[0]] = fields[1]
    return wnid_of


def _images(source: sources.Source, folder: str) -> list[str]:
    """The sorted names of the images in a folder, which must hold nothing else."""
    names = [name for name in source.names(folder) if not _is_clutter(name)]
    for name in names:
        if not name.lower().endswith(_JPEG_SUFFIXES):
            raise errors.UsageError(
                f"{source.where(folder)}: holds {name!r}, which is not a JPEG; remove it."
            )
    return names


def _read_lines(source: sources.Source, name: str) -> list[str]:
    try:
        # Some editors begin a file with a byte order mark, which utf-8-sig skips.
        return source.read_bytes(source.path(name)).decode("utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise errors.UsageError(
            f"{source.where(name)}: no such file; restore it from the archive."
        ) from error
    except UnicodeDecodeError as error:
        raise errors.UsageError(
            f"{source.where(name)}: is not text ({error}); restore it from the archive."
        ) from error


def _is_plain(name: str) -> bool:
    """Whether a name from a list may become part of a path."""
    return bool(name) and not name.startswith(".") and not re.search(r'[/\\:\0<>"|?*]', name)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in _CLUTTER


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are, for a message."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
