"""A TFDS builder of the images that a .csv or .jsonl file lists.

Columns of a CSV, which has a header, or keys of each JSON object; others are ignored:
    path     of an image, absolute or relative to the file's folder
    label    the name of its class
    split    train, training or empty; val, valid, validation or test. May be missing.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from cnnrnn import errors
from cnnrnn.datasets import class_folders, image_folder
from cnnrnn.settings import paths
from cnnrnn.system import text as text_lib

_DELIMITERS = (",", ";", "\t")
_REQUIRED = ("path", "label")
_TRAIN, _VALIDATION, _TEST = "train", "validation", "test"
_SPLITS = {
    "": _TRAIN,
    **dict.fromkeys(image_folder.TRAIN_NAMES, _TRAIN),
    **dict.fromkeys(image_folder.VALIDATION_NAMES, _VALIDATION),
    **dict.fromkeys(image_folder.TEST_NAMES, _TEST),
}


@dataclasses.dataclass(frozen=True)
class _Row:
    """One listed image.

    Attributes:
        line: its line in the file, from 1.
        path: absolute and normalized.
        label: name of the class.
        split: 'train', 'validation' or 'test'.
    """

    line: int
    path: str
    label: str
    split: str


def build(
    table: pathlib.Path,
    on_problem: image_folder.OnProblem | None = None,
    keeps_missing: bool = False,
    is_test: bool = False,
) -> image_folder.FolderBuilder:
    """Lists the images of the file by class, then by path, as in class folders.

    Lines with the split 'test' validate if no line has one of the other names of validation, and
    are left out otherwise. Of test images these lines are listed, else those of validation, else
    all, as the split 'train'.

    Args:
        table: the .csv or .jsonl file.
        on_problem: called with each problem of one line, which is then skipped. Default: raises.
        keeps_missing: whether to list images that do not exist, which the check then reports.
        is_test: whether the file lists images of --test_dataset, which may be of one class.

    Returns:
        A builder with the split 'train' and, if a line has one, 'validation'.

    Raises:
        UsageError: the file cannot be read, is not UTF-8 or lacks a column, or a line is wrong.
    """
    on_problem = on_problem or image_folder.raise_problem
    records = _csv_records if table.suffix.lower() == ".csv" else _jsonl_records
    rows = [
        row
        for line, values in records(_read(table), table, on_problem)
        if (row := _row(table, line, values, on_problem)) is not None
    ]
    rows = _without_repeated(table, rows, on_problem)
    splits = {_TRAIN: _test_rows(rows)} if is_test else _by_split(table, rows, on_problem)
    if not keeps_missing:
        splits = {name: _existing(table, own, on_problem) for name, own in splits.items()}
    names = sorted({row.label for row in splits[_TRAIN]})
    if len(names) < 2 and not is_test:
        only = f" (only {names[0]!r})" if names else ""
        on_problem(
            f"{_shown(table)} lists training images of {len(names)} class(es){only}: a classifier "
            "needs at least two."
        )
    labels = {name: label for label, name in enumerate(names)}
    examples = {
        split: tuple(
            (row.path, labels[row.label])
            for row in sorted(own, key=lambda row: (row.label, row.path))
            if row.label in labels  # else no training image of the class exists
        )
        for split, own in splits.items()
    }
    counts = collections.Counter(row.split for listed in splits.values() for row in listed)
    shown = " and ".join(f"{count:,} {split}" for split, count in counts.items())
    logging.info(f"{_shown(table)}: {shown or 'no'} images")
    return image_folder.FolderBuilder(
        table.parent, examples, image_folder.printable_and_distinct(names)
    )


def _shown(table: pathlib.Path) -> str:
    return text_lib.printable(str(table))


def _where(table: pathlib.Path, line: int) -> str:
    return f"{_shown(table)}, line {line}:"


def _read(table: pathlib.Path) -> str:
    """The text of the file, without the byte order mark that some programs begin it with."""
    try:
        content = table.read_bytes()
    except FileNotFoundError as error:
        raise errors.UsageError(f"--dataset={_shown(table)} does not exist.") from error
    except OSError as error:
        raise errors.UsageError(
            f"--dataset={_shown(table)} cannot be read ({error.strerror})."
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise errors.UsageError(
            f"{_where(table, line)} is not UTF-8 text: save the file in that encoding."
        ) from error


def _csv_records(
    text: str, table: pathlib.Path, on_problem: image_folder.OnProblem
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, values by column) of each record of a CSV."""
    # Without `strict`, a quote that is not closed would swallow the lines after it.
    options = {"strict": True, "skipinitialspace": True}
    first, _, _ = text.partition("\n")
    delimiter = next(
        (d for d in _DELIMITERS if set(_REQUIRED) <= set(_header(first, d))), _DELIMITERS[0]
    )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **options)
    columns = None
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            on_problem(f"{_where(table, line)} is not valid CSV ({error}): fix or remove it.")
            continue
        if columns is None:
            columns = _columns(table, record)
        elif record and len(record) != len(columns):
            on_problem(
                f"{_where(table, line)} has {len(record)} values, but the header has "
                f"{len(columns)}: put values that contain {delimiter!r} between quotes."
            )
        elif record:
            yield line, dict(zip(columns, record, strict=True))
    if columns is None:
        raise errors.UsageError(f"{_shown(table)} is empty: expected a header and lines.")


def _header(line: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in line.split(delimiter)]


def _columns(table: pathlib.Path, header: Sequence[str]) -> list[str]:
    """The names of the columns in lower case.

    Raises:
        UsageError: a required one is missing, or one that is read is there twice.
    """
    columns = [name.strip().lower() for name in header]
    for name in _REQUIRED:
        if name not in columns:
            found = text_lib.printable(", ".join(header))
            raise errors.UsageError(
                f"{_where(table, 1)} the header lacks the column {name!r}: expected path, label "
                f"and, if wanted, split. Received: {found}."
            )
    for name in (*_REQUIRED, "split"):
        if columns.count(name) > 1:
            raise errors.UsageError(f"{_where(table, 1)} the header has {name!r} twice.")
    return columns


def _jsonl_records(
    text: str, table: pathlib.Path, on_problem: image_folder.OnProblem
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, values by key) of each line that is not empty."""
    # Not splitlines, which would also split at characters that JSON allows in texts.
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            on_problem(f"{_where(table, line)} is not valid JSON ({error}): fix or remove it.")
            continue
        if problem := _problem_of_record(record):
            on_problem(f"{_where(table, line)} {problem}.")
        else:
            names = (*_REQUIRED, "split")
            yield line, {name: str(record[name]) for name in names if record.get(name) is not None}


def _problem_of_record(record: Any) -> str:
    """Why a JSON value does not describe an image, '' if it does."""
    if not isinstance(record, dict):
        return 'is not a JSON object: expected {"path": ..., "label": ...}'
    for name in _REQUIRED:
        if record.get(name) is None:
            return f"lacks {name!r}"
    for name, kinds in (("path", str), ("label", str | int | float), ("split", str | None)):
        value = record.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool) or value != value:
            expected = "a text or a number" if name == "label" else "a text"
            return f"has {name}={text_lib.printable(json.dumps(value))}: expected {expected}"
    return ""


def _row(
    table: pathlib.Path, line: int, values: dict[str, str], on_problem: image_folder.OnProblem
) -> _Row | None:
    """Checks a record; None if it was a problem."""
    path, label = values["path"].strip(), values["label"].strip()
    split = values.get("split", "").strip()
    if not path or "\0" in path:
        on_problem(f"{_where(table, line)} has no path of an image.")
    elif not label:
        on_problem(f"{_where(table, line)} has no label: give one, or remove the line.")
    elif not text_lib.is_encodable(path + label):
        on_problem(f"{_where(table, line)} has half a surrogate pair in its path or label.")
    elif label != text_lib.printable(label):
        on_problem(f"{_where(table, line)} has a label with a line break or a control character.")
    elif split.lower() not in _SPLITS:
        on_problem(
            f"{_where(table, line)} has split={text_lib.printable(split)!r}: expected train, "
            "validation, test or nothing."
        )
    else:
        folder = _resolved(table.parent)
        absolute = paths.absolute(os.path.join(folder, os.path.expanduser(path)))
        return _Row(line, absolute, label, _SPLITS[split.lower()])
    return None


@functools.lru_cache(maxsize=1)
def _resolved(folder: pathlib.Path) -> str:
    """A folder without links: the system resolves them before `..` in a path that follows."""
    return os.path.realpath(folder)


def _without_repeated(
    table: pathlib.Path, rows: Sequence[_Row], on_problem: image_folder.OnProblem
) -> list[_Row]:
    """Each image once in a split; reports images with two labels."""
    first: dict[str, _Row] = {}
    kept: dict[tuple[str, str], _Row] = {}
    for row in rows:
        earlier = first.setdefault(row.path, row)
        if earlier.label != row.label:
            on_problem(
                f"{_where(table, row.line)} {text_lib.printable(row.path)} has the label "
                f"{row.label!r}, but {earlier.label!r} in line {earlier.line}: remove one."
            )
            continue
        kept.setdefault((row.path, row.split), row)
    repeated = sum(row.label == first[row.path].label for row in rows) - len(kept)
    if repeated:
        logging.info(f"note: {_shown(table)} repeats {repeated} image(s); each is used once")
    return list(kept.values())


def _existing(
    table: pathlib.Path, rows: Sequence[_Row], on_problem: image_folder.OnProblem
) -> list[_Row]:
    """The rows whose file exists; reports the others."""
    # Threads hide the latency of network file systems.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        exists = list(pool.map(os.path.exists, [row.path for row in rows]))
    for row, found in zip(rows, exists, strict=True):
        if not found:
            on_problem(
                f"{_where(table, row.line)} there is no file {text_lib.printable(row.path)}: paths "
                "are relative to the folder of the list."
            )
    return [row for row, found in zip(rows, exists, strict=True) if found]


def _test_rows(rows: Sequence[_Row]) -> list[_Row]:
    """The rows to be evaluated of a list of test images."""
    for split in (_TEST, _VALIDATION):
        if found := [row for row in rows if row.split == split]:
            return found
    return list(rows)


def _by_split(
    table: pathlib.Path, rows: Sequence[_Row], on_problem: image_folder.OnProblem
) -> dict[str, list[_Row]]:
    """The training and, if there are any, the validation rows."""
    by_split: dict[str, list[_Row]] = {_TRAIN: []}
    for row in rows:
        by_split.setdefault(row.split, []).append(row)
    test = by_split.pop(_TEST, [])
    if test and _VALIDATION in by_split:
        logging.info(f"note: {len(test)} lines of {_shown(table)} with split=test are not used")
    elif test:
        by_split[_VALIDATION] = test
    trained = {row.label for row in by_split[_TRAIN]}
    unknown = {row.label: row for row in reversed(by_split.get(_VALIDATION, []))}
    if unknown.keys() - trained:
        class_folders.report_similar({*trained, *unknown})
    for label in sorted(unknown.keys() - trained):
        on_problem(
            f"{_where(table, unknown[label].line)} the class {label!r} has validation images, but "
            "no training images: add some, or remove its lines."
        )
    return {
        split: [row for row in of_split if row.label in trained]
        for split, of_split in by_split.items()
    }
