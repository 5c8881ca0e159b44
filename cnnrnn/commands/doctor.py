"""`doctor`: problems and oddities of a data set. No file of the data set is changed.

Training detects images that it cannot train on (see `image_index`). The report lists them all, and
what training would accept without a message: duplicates, contradictions, nearly empty classes.
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
from cnnrnn.datasets import splits as splits_lib
from cnnrnn.system import atomic_files, console
from cnnrnn.system import text as text_lib

_SMALL_SIDE = 16  # pixels; smaller images show little
_LONG = 8  # ratio of the sides from which resizing to a square leaves little of an image
_BAD = "bad image"
_FEW = 10  # training images of a class
_SPLITS = ("training", "validation")
_SHOWN = 5  # findings of each kind that are printed
_SHOWN_LENGTH = 400  # of a finding that is printed: it may list thousands of duplicates


@dataclasses.dataclass(frozen=True)
class Finding:
    """An observation about one image, class or folder.

    Attributes:
        kind: of the observation; the report is grouped by it.
        what: the image or class, '' for a folder or a line of a table.
        why: the observation.
        bad: whether the data set cannot be trained on as it is.
    """

    kind: str
    what: str
    why: str
    bad: bool = False


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Examines a data set, prints the findings and writes them into the run's folder.

    Raises:
        UsageError: the data set does not exist.
        RunError: it cannot be trained on as it is, or the report cannot be written.
    """
    examined, messages, problems = _examined(config)
    splits = {"training": examined.train}
    if examined.validation is not None:
        splits["validation"] = examined.validation
    with console.captured() as others:
        try:
            divided = dict(zip(_SPLITS, dataset_lib.divide(config, examined), strict=True))
        except errors.UsageError as error:
            if not problems:  # else it may follow from these
                problems.append(str(error))
            divided = splits
    source = "folder" if config.data.table is None else "table"
    findings = [
        *(Finding(source, "", text_lib.printable(problem), bad=True) for problem in problems),
        *(
            Finding("note", "", text_lib.printable(message.removeprefix("note: ")))
            for message in (*messages, *others)
        ),
        *_images(splits, skips=config.data.bad_images == "skip"),
        *_duplicates(divided, examined.class_names),
        *_classes(divided, examined.class_names),
    ]
    findings.sort(key=lambda finding: not finding.bad)
    images = sum(map(len, splits.values()))
    for line in _lines(findings, images):
        logging.info(line)
    report = config.run_dir / "doctor"
    _write(report, config, findings, images)
    logging.info(f"complete report: {report}.txt, {report}.json")
    bad = sum(finding.bad for finding in findings)
    if bad:
        unusable = sum(finding.bad and finding.kind == _BAD for finding in findings)
        skip = 0 < unusable < images
        raise errors.RunError(
            f"{text_lib.printable(config.data.dataset)} cannot be trained on as it is: {bad:,} "
            f"problem(s) listed.{' Bad images can be left out with --bad_images=skip.' * skip}"
        )


def _examined(config: config_lib.Config) -> tuple[dataset_lib.Examined, list[str], list[str]]:
    """The examined data set, the messages of the examination, and problems of folders or lists."""
    problems: list[str] = []
    try:
        with console.captured() as messages:
            return dataset_lib.examine(config, problems.append), messages, problems
    except errors.UsageError as error:  # it may follow from what was found before
        for message in messages:
            logging.info(message)
        raise errors.UsageError(" ".join([*problems, str(error)])) from error


def _images(splits: dict[str, splits_lib.Split], *, skips: bool) -> Iterator[Finding]:
    """Observations about single images; `skips` is whether training leaves bad ones out."""
    for split in splits.values():
        for index, info in enumerate(split.infos):
            for kind, why in _of_image(info, split.path(index)):
                yield Finding(kind, split.describe(index), why, bad=kind == _BAD and not skips)


def _of_image(info: image_check.ImageInfo, path: str) -> Iterator[tuple[str, str]]:
    """(kind, why) of each observation about an image; `path` is '' if it has no file."""
    if info.problem:
        yield _BAD, info.problem
    if path and (odd := _odd_name(path)):
        yield "odd name", odd
    if not info.format:
        return
    if path and not image_check.has_usual_suffix(path, info):
        yield "wrong extension", f"is {info.format}, and is read as such"
    if 2 <= info.orientation <= 8:
        how = "is applied" if info.format == "JPEG" else "is ignored; only JPEGs are rotated"
        yield "EXIF rotation", f"EXIF orientation {info.orientation} {how}"
    size = f"{info.width} x {info.height} pixels"
    if 0 < min(info.width, info.height) < _SMALL_SIDE:
        yield "tiny image", size
    if max(info.width, info.height) > _LONG * min(info.width, info.height):
        yield "long image", size
    if info.frames > 1 and not info.problem:
        yield "animation", f"the first of {info.frames} frames is used"
    if info.bits == 16 and not info.problem:
        yield "16 bits", "16 bits per channel: only the upper 8 are used"
    if info.transparent:
        how = "as black" if info.format == "GIF" else "in the colors stored below them"
        yield "transparency", f"transparent pixels are read {how}"


def _odd_name(path: str) -> str:
    """Why other programs may have trouble with a file's name; this one does not."""
    name = pathlib.PurePath(path).name
    if any(0xDC80 <= ord(c) <= 0xDCFF for c in name):
        return "bytes that are not UTF-8"
    if any(unicodedata.category(c) == "Cc" for c in name):
        return "a line break or another control character"
    if name != name.strip():
        return "a space at its beginning or end"
    if unicodedata.normalize("NFC", name) != name:
        return "letters and accents as separate characters, which systems compare differently"
    return ""


def _duplicates(
    splits: dict[str, splits_lib.Split], class_names: tuple[str, ...]
) -> Iterator[Finding]:
    """Images with the same content: duplicates, in two classes, or in both splits."""
    places_of: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for name, split in splits.items():
        for index, info in enumerate(split.infos):
            if info.sha256 and not info.problem:
                places_of[info.sha256].append((name, index))
    for places in places_of.values():
        if len(places) == 1:
            continue
        first, *others = (splits[name].describe(index) for name, index in places)
        also = "; ".join(others)
        labels = {int(splits[name].labels[index]) for name, index in places}
        if len(labels) > 1:
            names = ", ".join(repr(class_names[label]) for label in sorted(labels))
            yield Finding("label conflict", first, f"is in the classes {names}: {also}")
        if len({name for name, _ in places}) > 1:
            yield Finding("in both splits", first, f"the same image is in both splits: {also}")
        elif len(labels) == 1:
            yield Finding("duplicate", first, f"{len(others)} more: {also}")


def _classes(
    splits: dict[str, splits_lib.Split], class_names: tuple[str, ...]
) -> Iterator[Finding]:
    """Classes with few or no images that can be trained on."""
    for name, split in splits.items():
        labels = split.labels[~split.problems]
        counts = np.bincount(labels, minlength=len(class_names))
        for class_name, count in zip(class_names, counts, strict=True):
            if count == 0:
                yield Finding("empty class", class_name, f"no {name} images")
            elif count < _FEW and name == "training":
                yield Finding("small class", class_name, f"{count} {name} images")


def _lines(findings: Iterable[Finding], images: int) -> Iterator[str]:
    """The printed report: some findings of each kind."""
    by_kind: dict[str, list[Finding]] = collections.defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    yield f"doctor: {images:,} images examined"
    for kind, of_kind in by_kind.items():
        yield f"\n{kind}: {len(of_kind):,}"
        for finding in of_kind[:_SHOWN]:
            text = _text(finding)
            yield f"  {text[:_SHOWN_LENGTH]}{' ...' * (len(text) > _SHOWN_LENGTH)}"
        if len(of_kind) > _SHOWN:
            yield f"  and {len(of_kind) - _SHOWN:,} more"
    yield ""
    if not any(finding.bad for finding in findings):
        yield "nothing that prevents training was found"


def _write(
    path: pathlib.Path, config: config_lib.Config, findings: list[Finding], images: int
) -> None:
    """Writes the complete report as PATH.txt and PATH.json."""
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


def _text(finding: Finding) -> str:
    text = f"{finding.what}: {finding.why}" if finding.what else finding.why
    return text_lib.printable(text)
