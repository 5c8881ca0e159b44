"""The command line: flags -> Config -> one command.

    python -m cnnrnn.main [COMMAND] --flagfile=flags.txt [--flag=value ...]

Exit codes: 0 done, 2 wrong use, 1 failed, 130 stopped by Ctrl-C, 143 by SIGTERM or SIGHUP.
"""

import dataclasses
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import flags

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import console, quiet_tensorflow, stop_signals
from cnnrnn.system import text as text_lib

# One table for this program, for run.sh's help and for its suggestions.
_TABLE = pathlib.Path(__file__).parent / "commands" / "commands.tsv"
_DEFAULT = "train"
_HELP_FLAGS = {"--help", "-help", "-h", "--helpfull", "--helpshort"}
# These take positional arguments.
_WITH_ARGUMENTS = ("data", "reproduce", "predict", "explain")
# These leave TensorFlow, and the memory that it takes, to their child processes.
_WITHOUT_TENSORFLOW = ("preflight",)
_RESUME = (
    " To resume, give the same command again: training continues from its last checkpoint; a phase "
    "without one starts from the beginning."
)


@dataclasses.dataclass(frozen=True)
class Command:
    """One row of the table.

    Attributes:
        module: below cnnrnn.commands.
        function: of that module, taking (arguments, config).
        groups: of the flags that it reads, as in `Config`.
        help: one line.
    """

    module: str
    function: str
    groups: tuple[str, ...]
    help: str


def commands() -> dict[str, Command]:
    """The commands of this program, by their word."""
    found = {}
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        word, target, groups, help_text = line.split("\t")
        if target != "-" and not word.startswith("#"):
            module, _, function = target.partition(":")
            found[word] = Command(module, function or "run", tuple(groups.split()), help_text)
    return found


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns the exit code; prints a user's mistake as one sentence."""
    console.install()
    try:
        return _run(list(argv))
    except errors.UsageError as error:
        return _fail(error, 2)
    except BrokenPipeError:  # the reader of the output closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (errors.RunError, OSError) as error:
        return _fail(error, 1)
    except errors.Stopped as stopped:
        word, _ = _split(argv[1:])
        resume = _RESUME if word in ("train", "phase1", "phase2") else ""
        return _fail(f"stopped by {stopped}.{resume}", stopped.exit_code)


def _run(argv: list[str]) -> int:
    define_once()
    word, arguments = _split(argv[1:])
    if word not in commands():
        raise errors.UsageError(
            f"unknown command {word!r}: expected one of {', '.join(commands())}."
        )
    if _HELP_FLAGS & set(arguments):
        print(usage(word if argv[1:2] == [word] else None))
        return 0
    try:
        positional = flags.FLAGS([argv[0], *arguments])[1:]
    except (flags.Error, ValueError) as error:  # ValueError: a flagfile that is not text
        raise errors.UsageError(f"{str(error).rstrip('.')}. See --help.") from error
    config = config_lib.from_flags()
    if positional and word not in _WITH_ARGUMENTS:
        raise errors.UsageError(
            f"{word} takes flags only. Received: {positional[0]!r}. See --help."
        )
    return _dispatch(word, positional, config)


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command word, by default 'train', and what follows it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    return _DEFAULT, list(arguments)


def _dispatch(word: str, positional: list[str], config: config_lib.Config) -> int:
    command = commands()[word]
    if word not in _WITHOUT_TENSORFLOW:
        quiet_tensorflow.import_tensorflow()
    run = _function(command)
    if word in _WITHOUT_TENSORFLOW:
        run(positional, config)
        return 0
    import tensorflow as tf

    try:
        run(positional, config)
    except tf.errors.ResourceExhaustedError as error:
        raise errors.RunError(
            f"out of memory ({text_lib.first_line(error)}): give a smaller --batch_size."
        ) from error
    return 0


def _function(command: Command) -> Callable[[Sequence[str], config_lib.Config], None]:
    module = importlib.import_module(f"cnnrnn.commands.{command.module}")
    return getattr(module, command.function)


def define_once() -> None:
    if "dataset" not in flags.FLAGS:
        config_lib.define_flags()


def usage(word: str | None = None) -> str:
    """The help text of one command, or of all.

    Args:
        word: the command, whose flags are shown by group; None: all commands and flags.
    """
    pairs = (
        "(a pair is PHASE1,PHASE2; one value stands for both; a later flag overrides an earlier "
        "one and the flagfile's)"
    )
    if word is not None:
        command = commands()[word]
        shown = config_lib.flags_help(command.groups)
        return f"{word}: {command.help}\n\nFlags {pairs}:\n{shown}"
    rows = "\n".join(f"  {name:<15}{command.help}" for name, command in commands().items())
    every = [field.name for field in dataclasses.fields(config_lib.Config)]
    return f"{__doc__}\nCommands:\n{rows}\n\nFlags {pairs}:\n{config_lib.flags_help(every)}"


def _fail(error: object, code: int) -> int:
    sys.stdout.flush()
    print(f"cnnrnn: {error}", file=sys.stderr)
    return code


def entry() -> None:
    """The `cnnrnn` script."""
    stop_signals.install()
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    entry()
