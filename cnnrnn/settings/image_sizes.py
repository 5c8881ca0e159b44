"""The sizes of the CNN's input in training: a schedule for each phase."""

import dataclasses
import math

SMALLEST = 71  # of Xception
LARGEST = 299  # the size of the RNN's view, from which the CNN's is scaled


@dataclasses.dataclass(frozen=True)
class SizeShare:
    """A size, and the share of a phase's steps that is trained at it."""

    size: int
    share: float


def is_valid_size(size: int) -> bool:
    return SMALLEST <= size <= LARGEST


def parse(text: str) -> tuple[tuple[SizeShare, ...], tuple[SizeShare, ...]]:
    """Reads '299', '160:0.7,299:0.3' or two of these separated by '/', one for each phase.

    Raises:
        ValueError: it is something else.
    """
    parts = text.split("/")
    if len(parts) > 2:
        raise ValueError("more than two phases")
    schedules = [_schedule(part) for part in parts]
    return schedules[0], schedules[-1]


def _schedule(text: str) -> tuple[SizeShare, ...]:
    if ":" not in text:
        schedule = (SizeShare(int(text), 1.0),)
    else:
        pairs = [part.split(":") for part in text.split(",")]
        schedule = tuple(SizeShare(int(size), float(share)) for size, share in pairs)
    total = sum(each.share for each in schedule)
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"the shares add up to {total}")
    if not all(is_valid_size(each.size) and each.share > 0 for each in schedule):
        raise ValueError("a size or a share is out of range")
    return schedule


def text(schedule: tuple[SizeShare, ...]) -> str:
    """The schedule of one phase as `parse` reads it."""
    if len(schedule) == 1:
        return str(schedule[0].size)
    return ",".join(f"{each.size}:{each.share:g}" for each in schedule)


def is_valid(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
