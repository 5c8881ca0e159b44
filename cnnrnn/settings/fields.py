"""Fields that are also flags, and the checks of their values.

Settings that differ between the phases are pairs (phase 1, phase 2); on the command line, one value
sets both.
"""

import dataclasses
import math
import unicodedata
from collections.abc import Callable
from typing import Any

Check = tuple[Callable[[Any], bool], str]  # whether a value is valid, what is expected


def setting(default: Any, help_text: str, check: Check | None = None, flag: str = ""):
    """A field that is also a flag.

    Args:
        default: its type is the flag's type.
        help_text: of the flag.
        check: of the value; of each value of a pair.
        flag: name of the flag; empty: that of the field.
    """
    metadata = {"help": help_text, "check": check, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*values: str) -> Check:
    return (lambda value: value in values), "one of " + ", ".join(values)


POSITIVE = (lambda value: value >= 1), "at least 1"
NOT_NEGATIVE = (lambda value: 0 <= value < math.inf), "0 or more"
POSITIVE_REAL = (lambda value: 0 < value < math.inf), "a number above 0"
FRACTION = (lambda value: 0 < value < 1), "a number between 0 and 1"
FRACTION_OR_ZERO = (lambda value: 0 <= value < 1), "from 0 to less than 1"
SEED = (lambda value: 0 <= value < 2**31), "from 0 to 2147483647"


def is_in_name(character: str) -> bool:
    """Whether a character may be in the name of a run: letters of any alphabet with their marks."""
    return character in "._+ -" or unicodedata.category(character)[0] in "LMN"


NAME = (
    lambda value: value[:1] not in (".", "-", " ") and all(map(is_in_name, value)),
    "a folder name of letters, digits, '.', '_', '-', '+' and spaces (not a path: see --runs_dir)",
)
GIVEN = (lambda value: value.strip() != ""), "not empty"
