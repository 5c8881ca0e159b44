"""`doctor`: what is wrong, or odd, with a data set. It reads; no file of the user's is changed.

Training finds by itself what it cannot train on (see `image_index`); this says it all at once,
and what training would take without a word: duplicates, contradictions, classes next to empty.
"""

import collections
import dataclasses
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import image_check
from cnnrnn.system import atomic_files, console
from cnnrnn.system import text as text_lib

_SMALL_SIDE = 16  # pixels: there is little to see in less
_LONG = 8  # times as long as wide: resizing to a square leaves little of it
_BAD = "bad image"
_FEW = 10  # training images of a class
_SHOWN = 5  # of a kind, in the printed report


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing about one image, class or folder.

    `bad` says that it keeps the data set from being trained on as it is.
    """

    kind: str
    what: str
    why: str
    bad: bool = False


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Examines a data set, prints the findings and writes them into the run's folder.

    Raises:
        UsageError: there is no such data set.
        RunError: something keeps it from being trained on, or the report cannot be written.
    """
    faults: list[str] = []
    with console.captured() as notes:
        examined = dataset_lib.examine(config, faults.append)
    splits = {"training": examined.train}
    if examined.validation is not None:
        splits["validation"] = examined.validation
    findings = [
        *(Finding("folder", "", text_lib.printable(fault), bad=True) for fault in faults),
        *(Finding("note", "", text_lib.printable(note.removeprefix("note: "))) for note in notes),
        *_images(splits),
        *_duplicates(splits, examined.class_names),
        *_classes(splits, examined.class_names),
    ]
    findings.sort(key=lambda finding: not finding.bad)
    images = sum(map(len, splits.values()))
    for line in _lines(findings, images):
        logging.info(line)
    written = _write(config.run_dir / "doctor", config, findings, images)
    logging.info(f"the whole report: {written}.txt, {written}.json")
    bad = sum(finding.bad for finding in findings)
    if bad:
        raise errors.RunError(
            f"{bad:,} finding(s) keep {config.data.dataset} from being trained on as it is. Bad "
            "images can be left out by --bad_images=skip."
        )


def _images(splits: dict[str, dataset_lib.Split]) -> Iterator[Finding]:
    """What can be said of each image by itself."""
    for split in splits.values():
        for row, info in enumerate(split.infos):
            for kind, why in _of_image(info, split.path(row)):
                yield Finding(kind, split.describe(row), why, bad=kind == _BAD)


def _of_image(info: image_check.ImageInfo, path: str) -> Iterator[tuple[str, str]]:
    """(kind, why) of what is to be said of one image; `path` is '' if it is no file."""
    if info.problem:
        yield _BAD, info.problem
    if path and (odd := _odd_name(path)):
        yield "odd name", odd
    if not info.format:
        return
    if path and not image_check.has_usual_suffix(path, info):
        yield "wrong extension", f"is {info.format}, and is read as that"
    if 2 <= info.orientation <= 8:
        how = "is turned upright" if info.format == "JPEG" else "is not turned: only JPEGs are"
        yield "EXIF rotation", f"orientation {info.orientation}: {how}"
    size = f"{info.width} x {info.height} pixels"
    if 0 < min(info.width, info.height) < _SMALL_SIDE:
        yield "tiny image", size
    if max(info.width, info.height) > _LONG * min(info.width, info.height):
        yield "long image", size
    if info.frames > 1 and not info.problem:
        yield "animation", f"the first of {info.frames} frames is used"


def _odd_name(path: str) -> str:
    """What other programs may stumble over in a name; this one does not."""
    name = pathlib.PurePath(path).name
    if any(0xDC80 <= ord(c) <= 0xDCFF for c in name):
        return "bytes that are not UTF-8"
    if any(unicodedata.category(c) == "Cc" for c in name):
        return "a line break or another control character"
    if name != name.strip():
        return "a space at its beginning or end"
    if unicodedata.normalize("NFC", name) != name:
        return "letters and accents apart: systems differ in whether that is the same name"
    return ""


def _duplicates(
    splits: dict[str, dataset_lib.Split], class_names: tuple[str, ...]
) -> Iterator[Finding]:
    """Images that are equal to the byte, and what that means."""
    same: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for name, split in splits.items():
        for row, info in enumerate(split.infos):
            if info.sha256 and not info.problem:
                same[info.sha256].append((name, row))
    for places in same.values():
        if len(places) == 1:
            continue
        first, others = places[0], places[1:]
        what = splits[first[0]].describe(first[1])
        also = "; ".join(splits[name].describe(row) for name, row in others)
        labels = {int(splits[name].labels[row]) for name, row in places}
        if len(labels) > 1:
            names = ", ".join(repr(class_names[label]) for label in sorted(labels))
            yield Finding("label conflict", what, f"is of {names}: {also}")
        if len({name for name, _ in places}) > 1:
            yield Finding("in both splits", what, f"validation is no test of it: {also}")
        elif len(labels) == 1:
            yield Finding("duplicate", what, f"{len(others)} more: {also}")


def _classes(
    splits: dict[str, dataset_lib.Split], class_names: tuple[str, ...]
) -> Iterator[Finding]:
    """Classes with few or no images that can be trained on."""
    for name, split in splits.items():
        good = np.array([not info.problem for info in split.infos], bool)
        counts = np.bincount(split.labels[good & (split.labels >= 0)], minlength=len(class_names))
        for class_name, count in zip(class_names, counts, strict=True):
            if count == 0:
                yield Finding(
                    "empty class", class_name, f"no {name} images", bad=name != "validation"
                )
            elif count < _FEW and name == "training":
                yield Finding("small class", class_name, f"{count} {name} images")


def _lines(findings: Iterable[Finding], images: int) -> Iterator[str]:
    """The report as it is printed: a few of each kind."""
    by_kind: dict[str, list[Finding]] = collections.defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    yield f"doctor: {images:,} images examined"
    for kind, of_kind in by_kind.items():
        yield f"\n{kind}: {len(of_kind):,}"
        for finding in of_kind[:_SHOWN]:
            yield f"  {_text(finding)}"
        if len(of_kind) > _SHOWN:
            yield f"  and {len(of_kind) - _SHOWN:,} more"
    yield "" if by_kind else "nothing to say"


def _write(
    path: pathlib.Path, config: config_lib.Config, findings: list[Finding], images: int
) -> pathlib.Path:
    """Writes the whole report as PATH.txt and PATH.json."""
    lines = [f"{finding.kind}\t{_text(finding)}" for finding in findings]
    try:
        atomic_files.write_json(
            path.with_suffix(".json"),
            {
                "dataset": config.data.dataset,
                "images": images,
                "findings": [dataclasses.asdict(finding) for finding in findings],
            },
        )
        atomic_files.write_text(path.with_suffix(".txt"), "\n".join(lines) + "\n")
    except OSError as error:
        raise errors.RunError(f"cannot write the report {path}.txt: {error.strerror}") from error
    return path


def _text(finding: Finding) -> str:
    return f"{finding.what}: {finding.why}" if finding.what else finding.why
