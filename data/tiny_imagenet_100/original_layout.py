"""The layout in which tiny-imagenet is published, and the only place that knows it.

    TOP/wnids.txt                      one class id (a WordNet id) per line
    TOP/words.txt                      id, tab, the words for it (for all of WordNet)
    TOP/train/WNID/images/NAME.JPEG    the training images of one class
    TOP/val/images/NAME.JPEG           the validation images of all classes
    TOP/val/val_annotations.txt        name, class id and a box for each of them, between tabs
    TOP/test/...                       images without labels, never read here

It comes as a folder (TOP itself) or as the published zip; `sources` has the two.

The order of the examples is part of the contract: labels are indices into the sorted class ids, and
examples are sorted by label and then by file name. The same images as class folders sort alike.
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
IMAGE_SUFFIXES = (".jpeg", ".jpg")

# The first tells the top folder of an archive.
_REQUIRED = (ANNOTATIONS, WNIDS, "train/", "val/images/")
# What file managers leave behind; dot files are passed over as well.
_CLUTTER = frozenset({"Thumbs.db", "desktop.ini"})


@dataclasses.dataclass(frozen=True)
class OriginalLayout:
    """What a source holds, in canonical order.

    Attributes:
        wnids: The class ids, sorted; a label is an index into it.
        class_names: A distinct name for each class, in the same order.
        train: For each training image its path and label, sorted by label and file name.
        validation: The same for the validation images.
    """

    wnids: tuple[str, ...]
    class_names: tuple[str, ...]
    train: tuple[tuple[pathlib.PurePath, int], ...]
    validation: tuple[tuple[pathlib.PurePath, int], ...]


@contextlib.contextmanager
def open_source(path: pathlib.Path) -> Iterator[sources.Source]:
    """Opens a folder or a zip in the original layout.

    Args:
        path: The folder that holds wnids.txt, train/ and val/, or the archive.

    Yields:
        The source, which `read_source` reads.

    Raises:
        UsageError: There is nothing there, or it is an archive that `sources.Archive` refuses.
    """
    if path.is_file():
        with sources.Archive(path, _REQUIRED) as archive:
            yield archive
    else:
        yield sources.Folder(path)


def is_original_layout(root: pathlib.Path) -> bool:
    """Returns whether a folder is laid out as tiny-imagenet is published.

    What tells it from plain class folders is asked for, not all that `read` needs: so a folder
    that lost its wnids.txt is still recognised, and `read` can say what is wrong with it.
    """
    if not (root / ANNOTATIONS).is_file() or not (root / "train").is_dir():
        return False
    return any((folder / "images").is_dir() for folder in (root / "train").iterdir())


def read(root: pathlib.Path, wnids: Sequence[str] | None = None) -> OriginalLayout:
    """Reads what an unpacked folder holds; see `read_source`. The paths are those of the files."""
    return read_source(sources.Folder(root), wnids)


def read_source(source: sources.Source, wnids: Sequence[str] | None = None) -> OriginalLayout:
    """Reads what a source holds and checks it against its own lists.

    wnids.txt must be there although train/ would tell the classes too: without it nothing would
    tell that a class folder has gone missing.

    Args:
        source: The folder or the archive.
        wnids: The class ids to read, in any order, where not all of wnids.txt.

    Returns:
        The classes and the images, in canonical order.

    Raises:
        UsageError: A list is missing or malformed, or the images are not those that the lists
            call for. The message names the file or folder.
    """
    listed = _read_wnids(source)
    chosen = tuple(sorted(listed if wnids is None else set(wnids)))
    absent = [wnid for wnid in chosen if wnid not in listed]
    if absent:
        raise errors.UsageError(
            f"{source.where(WNIDS)}: lacks {_some(absent)}, asked for here; "
            "use an archive that holds these classes."
        )
    return OriginalLayout(
        wnids=chosen,
        class_names=class_names(source, chosen),
        train=_read_train(source, listed, chosen),
        validation=_read_validation(source, listed, chosen),
    )


def class_names(source: sources.Source, wnids: Sequence[str]) -> tuple[str, ...]:
    """Returns the words for each class, or its id where words.txt has none.

    Of use beyond this layout: class folders named by ids may have a words.txt beside them.
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
    """Returns all class ids that wnids.txt lists."""
    lines = [line.strip() for line in _read_lines(source, WNIDS) if line.strip()]
    for wnid in lines:
        if not _is_plain(wnid):
            raise errors.UsageError(
                f"{source.where(WNIDS)}: {wnid!r} is no class id; have one id in each line."
            )
    twice = [wnid for wnid, count in collections.Counter(lines).items() if count > 1]
    if twice:
        raise errors.UsageError(
            f"{source.where(WNIDS)}: lists {_some(twice)} twice; have each id once."
        )
    if not lines:
        raise errors.UsageError(f"{source.where(WNIDS)}: is empty; restore it from the archive.")
    return frozenset(lines)


def _read_train(
    source: sources.Source, listed: Iterable[str], chosen: Sequence[str]
) -> tuple[tuple[pathlib.PurePath, int], ...]:
    """Returns the training images of the chosen classes."""
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
            "move it away or add it to the list."
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
    """Returns the validation images of the chosen classes."""
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
            "list; move it away or add a line for it."
        )
    label_of = {wnid: label for label, wnid in enumerate(chosen)}
    labelled = [(label_of[wnid], name) for name, wnid in wnid_of.items() if wnid in label_of]
    return tuple((source.path(f"val/images/{name}"), label) for label, name in sorted(labelled))


def _read_annotations(source: sources.Source, listed: Iterable[str]) -> dict[str, str]:
    """Returns the class id of each validation image, by file name."""
    wnids = frozenset(listed)
    wnid_of: dict[str, str] = {}
    for number, line in enumerate(_read_lines(source, ANNOTATIONS), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        fault = None
        # The box after the first two fields is not needed, but half of one is a damaged line.
        if len(fields) not in (2, 6) or not _is_plain(fields[0]):
            fault = "is not a file name, a class id and a box, between tabs"
        elif fields[1] not in wnids:
            fault = f"names the class {fields[1]!r}, which {WNIDS} does not list"
        elif fields[0] in wnid_of:
            fault = f"lists {fields[0]!r} for the second time"
        if fault:
            raise errors.UsageError(
                f"{source.where(ANNOTATIONS)}: line {number} {fault}; restore it from the archive."
            )
        wnid_of[fields[0]] = fields[1]
    return wnid_of


def _images(source: sources.Source, folder: str) -> list[str]:
    """Returns the sorted names of the images in a folder that may hold nothing else."""
    names = [name for name in source.names(folder) if not _is_clutter(name)]
    for name in names:
        if not name.lower().endswith(IMAGE_SUFFIXES):
            raise errors.UsageError(
                f"{source.where(folder)}: holds {name!r}, which is no JPEG; move it away."
            )
    return names


def _read_lines(source: sources.Source, name: str) -> list[str]:
    try:
        # Some editors put a byte order mark before the first id; it is not part of it.
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
    """Returns whether a name from a list may become part of a path."""
    return bool(name) and not name.startswith(".") and not re.search(r'[/\\:\0<>"|?*]', name)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in _CLUTTER


def _some(names: Sequence[str], most: int = 3) -> str:
    """Returns a few names for a sentence, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
