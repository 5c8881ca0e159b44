"""The record of accuracy on tiny-imagenet-100: curves, evaluations on validation images, a table.

    python -m benchmarks.headline add RUN NAME [--after=NAME] [--control_of=NAME]
    python -m benchmarks.headline table

`add` copies what a run reached into results/tiny_imagenet_100/NAME; `--after` is the run that it
started from, whose images and minutes count, too. Its figures on the 5,000 validation images come
from `evaluate --test_dataset=tiny_imagenet_100`; each such evaluation is a line of evaluations.csv,
and stays there. `--control_of` is a run with the same recipe that it is compared with, image by
image. `table` writes README.md and curves.png there.
"""

import argparse
import pathlib

from benchmarks import headline_record, headline_table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.headline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(dest="word", required=True)
    adding = words.add_parser("add", help="copy what a run reached into the results")
    adding.add_argument("run", type=pathlib.Path, help="run folder")
    adding.add_argument("name", help="of the run in the results")
    adding.add_argument("--after", help="name of the run that it started from")
    adding.add_argument("--control_of", help="name of the run to compare it with")
    words.add_parser("table", help="write README.md and curves.png")
    arguments = parser.parse_args()
    try:
        if arguments.word == "add":
            headline_record.add(
                arguments.run, arguments.name, arguments.after, arguments.control_of
            )
        else:
            headline_table.table()
    except ValueError as error:
        raise SystemExit(f"headline: {error}") from error


if __name__ == "__main__":
    main()
