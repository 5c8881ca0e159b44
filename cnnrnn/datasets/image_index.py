"""The info of every image of a split, found once and kept.

They lie in one SQLite file in the cache folder, by path, size and time of change, so a second
start reads no image, and a first one that was killed goes on where it was.
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

from cnnrnn import config
from cnnrnn.datasets import example_source, image_check
from cnnrnn.system import progress

# To be counted up when an image's info may come out otherwise than before.
_VERSION = 1
_BATCH = 256  # images between two looks at the clock of the progress line
_TABLE = """CREATE TABLE IF NOT EXISTS info
    (name BLOB PRIMARY KEY, stamp TEXT, label INTEGER, info TEXT) WITHOUT ROWID"""

ImageInfo = image_check.ImageInfo


def examine(
    source: example_source.ExampleSource, name: str, max_pixels: int
) -> tuple[np.ndarray, list[ImageInfo]]:
    """Every image's label and info.

    Args:
        source: what to look at.
        name: what to call it in the progress line.
        max_pixels: see `image_check.examine`.

    Returns:
        labels (N,) int64, -1 where there is none; N info.
    """
    # With the version and the limit in it, info found by others are found stale.
    identities = [
        (key, f"{_VERSION} {max_pixels} {stamp}" if stamp else "")
        for key, stamp in source.identities()
    ]
    with _opened() as database:
        found = _kept(database, identities)
        missing = [row for row in range(len(source)) if row not in found]
        if missing:
            with (
                progress.Progress(
                    f"checking {name}", len(source), "images", initial=len(found)
                ) as bar,
                concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            ):
                for start in range(0, len(missing), _BATCH):
                    rows = missing[start : start + _BATCH]
                    answers = pool.map(lambda row: _examine(source, row, max_pixels), rows)
                    new = dict(zip(rows, answers, strict=True))
                    _keep(database, [(*identities[row], *new[row]) for row in rows])
                    found |= new
                    bar.update(len(found))
    labels = source.labels()  # not those kept: a class that is added renumbers the others
    if labels is None:
        labels = np.array([found[row][0] for row in range(len(source))], np.int64)
    return labels, [found[row][1] for row in range(len(source))]


def _examine(
    source: example_source.ExampleSource, row: int, max_pixels: int
) -> tuple[int, ImageInfo]:
    try:
        encoded, label = source.read(row)
    except OSError as error:
        return -1, ImageInfo("", problem=f"cannot be read ({error.strerror or error})")
    return label, image_check.examine(encoded, max_pixels)


@contextlib.contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The kept info; where they cannot be kept, a place that is forgotten at the end."""
    path = config.cache_dir() / "images.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = _connect(path)
    except (OSError, sqlite3.Error) as error:
        print(f"note: could not use what is kept in {path} ({error}): all images are checked anew")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            with contextlib.suppress(OSError):
                path.unlink()  # damaged: the next start writes it anew
        database = _connect(":memory:")
    with contextlib.closing(database):
        yield database


def _connect(path: pathlib.Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30)
    database.execute(_TABLE)
    database.execute("SELECT count(*) FROM info").fetchone()
    return database


def _kept(
    database: sqlite3.Connection, identities: list[tuple[bytes, str]]
) -> dict[int, tuple[int, ImageInfo]]:
    found = {}
    for row, (name, stamp) in enumerate(identities):
        kept = database.execute(
            "SELECT label, info FROM info WHERE name = ? AND stamp = ?", (name, stamp)
        ).fetchone()
        if stamp and kept:
            found[row] = kept[0], ImageInfo(**json.loads(kept[1]))
    return found


def _keep(database: sqlite3.Connection, rows: list[tuple[bytes, str, int, ImageInfo]]) -> None:
    """Notes info; it is no fault if they cannot be noted."""
    with contextlib.suppress(sqlite3.Error), database:
        database.executemany(
            "INSERT OR REPLACE INTO info VALUES (?, ?, ?, ?)",
            [
                (name, stamp, label, json.dumps(dataclasses.asdict(info)))
                for name, stamp, label, info in rows
            ],
        )
