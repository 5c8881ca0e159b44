"""A cache of image checks in an SQLite file, so that each image is checked once.

Entries are stored by path and valid until the file's size or time of change, or the version of
TensorFlow or Pillow, differs. So a second start reads no image, and a check that was killed
resumes.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator

import numpy as np
import PIL
import tensorflow as tf
from absl import logging

from cnnrnn.datasets import example_source, image_check
from cnnrnn.settings import paths
from cnnrnn.system import progress

# Increase it when the same image may get another info: older entries are then stale.
_VERSION = 6
_BATCH = 256  # images between two updates of the progress line
_TABLE = """CREATE TABLE IF NOT EXISTS info
    (name BLOB PRIMARY KEY, stamp TEXT, label INTEGER, info TEXT) WITHOUT ROWID"""


def examine(
    source: example_source.ExampleSource, name: str, max_pixels: int
) -> tuple[np.ndarray, list[image_check.ImageInfo]]:
    """The label and the info of every image of a split.

    Args:
        source: the split's examples.
        name: the split's name in the progress line.
        max_pixels: see `image_check.examine`.

    Returns:
        labels: (N,) int64, -1 where there is none.
        infos: N infos.
    """
    # The stamps contain all that an info depends on.
    minor = (".".join(each.__version__.split(".")[:2]) for each in (tf, PIL))
    versions = f"{_VERSION} {' '.join(minor)}"
    identities = [
        (key, f"{versions} {max_pixels} {stamp}" if stamp else "")
        for key, stamp in source.identities()
    ]
    with _database() as database:
        known = _read(database, identities)
        missing = [index for index in range(len(source)) if index not in known]
        if missing:
            with (
                progress.Progress(
                    f"checking {name}", len(source), "images", initial=len(known)
                ) as bar,
                concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            ):
                for start in range(0, len(missing), _BATCH):
                    indices = missing[start : start + _BATCH]
                    results = pool.map(lambda index: _examine(source, index, max_pixels), indices)
                    new = dict(zip(indices, results, strict=True))
                    # One that could not be read is not stored: it may be readable the next time,
                    # and its size and time of change do not show that.
                    read = [index for index in indices if new[index][1].sha256]
                    _write(database, [(*identities[index], *new[index]) for index in read])
                    known |= new
                    bar.update(len(known))
    # Labels of files are not taken from the database: a class that is added renumbers the others.
    labels = source.labels()
    if labels is None:
        labels = np.array([known[index][0] for index in range(len(source))], np.int64)
    return labels, [known[index][1] for index in range(len(source))]


def _examine(
    source: example_source.ExampleSource, index: int, max_pixels: int
) -> tuple[int, image_check.ImageInfo]:
    try:
        encoded, label = source.read(index)
    except OSError as error:
        return -1, image_check.ImageInfo("", problem=f"cannot be read ({error.strerror or error})")
    return label, image_check.examine(encoded, max_pixels)


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """The database in the cache folder; one in memory if that cannot be used."""
    path = paths.cache_dir() / "images.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = _connect(path)
    except (OSError, sqlite3.Error) as error:
        logging.warning(f"cannot use earlier checks in {path} ({error}): checking all images again")
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        if damaged:
            with contextlib.suppress(OSError):
                path.unlink()  # the next start creates it again
        database = _connect(":memory:")
    with contextlib.closing(database):
        yield database


def _connect(path: pathlib.Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30)
    database.execute(_TABLE)
    database.execute("SELECT count(*) FROM info").fetchone()  # raises on damage
    return database


def _read(
    database: sqlite3.Connection, identities: list[tuple[bytes, str]]
) -> dict[int, tuple[int, image_check.ImageInfo]]:
    """The stored (label, info) by index, without stale and damaged ones."""
    known = {}
    for index, (name, stamp) in enumerate(identities):
        with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
            entry = database.execute(
                "SELECT label, info FROM info WHERE name = ? AND stamp = ?", (name, stamp)
            ).fetchone()
            if stamp and entry:
                known[index] = entry[0], image_check.ImageInfo(**json.loads(entry[1]))
    return known


def _write(
    database: sqlite3.Connection, entries: list[tuple[bytes, str, int, image_check.ImageInfo]]
) -> None:
    """Stores (name, stamp, label, info) entries. Errors only cost checking them again."""
    with contextlib.suppress(sqlite3.Error), database:
        database.executemany(
            "INSERT OR REPLACE INTO info VALUES (?, ?, ?, ?)",
            [
                (name, stamp, label, json.dumps(dataclasses.asdict(info)))
                for name, stamp, label, info in entries
            ],
        )
