"""`predict`: the most likely classes of pictures.

Standard output has the answers and nothing else, so that it can go into a pipe; progress and
remarks go to standard error, on a terminal. A bad picture is answered in its place by what is
wrong with it, and makes the exit code 1; the others are answered all the same.
"""

import concurrent.futures
import csv
import glob
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors, example_source, folder_builder, picture_check, progress, trained

_BATCH = 32
_STANDARD_INPUT = "-"

Answer = list[tuple[str, float]] | str  # (class name, probability), or what is wrong


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Classifies pictures and prints what they are.

    Args:
        arguments: files, folders, patterns, or '-' for names on standard input, one a line.
        config: `model`, `top` and `format`.

    Raises:
        UsageError: there is nothing to classify, or nothing to do it with.
        RunError: some pictures are bad; raised when the others are answered.
    """
    paths = paths_of(arguments)
    classifier = trained.load(pathlib.Path(config.model or config.run_dir).expanduser())
    write = _WRITERS[config.format](sys.stdout)
    bad = 0
    with progress.Progress("predict", len(paths), "pictures", stream=sys.stderr) as bar:
        for done, (path, answer) in enumerate(answers(classifier, paths, config), 1):
            write(errors.printable(path), answer)
            bad += isinstance(answer, str)
            bar.update(done)
    if bad:
        raise errors.RunError(f"{bad:,} of {len(paths):,} pictures could not be read.")


def answers(
    classifier: trained.Classifier, paths: Sequence[str], config: config_lib.Config
) -> Iterator[tuple[str, Answer]]:
    """Each path with its answer, in order; the next batch is read while one is classified."""
    views = tf.function(classifier.views, input_signature=[tf.TensorSpec((), tf.string)])
    classify = tf.function(classifier.probabilities)

    def read(path: str) -> dict[str, np.ndarray] | str:
        try:
            encoded = example_source.read_file(path)
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        fault = picture_check.examine(encoded, config.max_pixels).fault
        return fault or {name: view.numpy() for name, view in views(encoded).items()}

    def classified(pictures: list[dict[str, np.ndarray] | str]) -> Iterator[Answer]:
        good = [picture for picture in pictures if not isinstance(picture, str)]
        found = iter(())
        if good:
            # Always of one size: a new one would be compiled anew.
            filled = good + [good[-1]] * (_BATCH - len(good))
            batch = {name: np.stack([picture[name] for picture in filled]) for name in good[0]}
            found = iter(classify(batch).numpy())
        for picture in pictures:
            yield picture if isinstance(picture, str) else classifier.top(next(found), config.top)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
        ahead = pool.map(read, batches[0])
        for batch, following in itertools.zip_longest(batches, batches[1:], fillvalue=()):
            pictures, ahead = list(ahead), pool.map(read, following)
            yield from zip(batch, classified(pictures), strict=True)


def paths_of(arguments: Sequence[str]) -> list[str]:
    """The pictures that arguments stand for: files, folders, patterns, or '-'.

    Raises:
        UsageError: there are none.
    """
    paths = list(itertools.chain.from_iterable(map(_paths, arguments)))
    if not paths:
        raise errors.UsageError(
            "expected pictures: files, folders, patterns, or - for names on standard input, one a "
            f"line. Received: {' '.join(arguments) or 'nothing'}."
        )
    return paths


def _paths(argument: str) -> Iterator[str]:
    """The pictures that one argument stands for, in the order of their names."""
    if argument == _STANDARD_INPUT:
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
    elif os.path.isdir(argument):
        for directory, folders, files in os.walk(argument):
            folders.sort()
            for name in sorted(files):
                if os.path.splitext(name)[1].lower() in folder_builder.PICTURE_SUFFIXES:
                    yield os.path.join(directory, name)
    elif os.path.lexists(argument) or not glob.has_magic(argument):
        yield argument  # one that is not there is answered as such
    else:
        yield from sorted(glob.glob(argument, recursive=True))


def _text(out: TextIO) -> Callable[[str, Answer], None]:
    def write(path: str, answer: Answer) -> None:
        if isinstance(answer, str):
            print(f"{path}: {answer}", file=out)
            return
        print(path, file=out)
        for name, probability in answer:
            print(f"  {probability:>6.1%}  {name}", file=out)

    return write


def _csv(out: TextIO) -> Callable[[str, Answer], None]:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "rank", "class", "probability", "error"))

    def write(path: str, answer: Answer) -> None:
        if isinstance(answer, str):
            writer.writerow((path, "", "", "", answer))
            return
        for rank, (name, probability) in enumerate(answer, 1):
            writer.writerow((path, rank, name, f"{probability:.6f}", ""))

    return write


def _jsonl(out: TextIO) -> Callable[[str, Answer], None]:
    def write(path: str, answer: Answer) -> None:
        if isinstance(answer, str):
            record = {"path": path, "error": answer}
        else:
            classes = [{"class": name, "probability": float(p)} for name, p in answer]
            record = {"path": path, "classes": classes}
        print(json.dumps(record, ensure_ascii=False), file=out)

    return write


_WRITERS = {"text": _text, "csv": _csv, "jsonl": _jsonl}
