"""cnnrnn: trains, evaluates, explains, exports and serves an image classifier.

    cnnrnn [COMMAND] [--flagfile=flags.txt] [--flag=value ...]

Without a command, `train`. Exit codes: 0 done, 2 wrong use, 1 failed, 130 stopped by Ctrl-C, 143
stopped by SIGTERM or SIGHUP.
"""

import contextlib
import dataclasses
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from absl import flags

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import console, deletion, quiet_tensorflow, scheduler, stop_signals
from cnnrnn.system import text as text_lib

_TABLE = pathlib.Path(__file__).parent / "commands" / "commands.tsv"  # run.sh reads it, too
_EXAMPLES = _TABLE.with_name("examples.tsv")
_DEFAULT = "train"
_HELP_FLAGS = {"--help", "-help", "-h", "--helpfull", "--helpshort"}
# Flags that say what a command works on, and their group: commands that do not read them refuse
# them. Others may be in a flagfile for several commands.
_OBJECTS = {"model": "prediction", "test_dataset": "evaluation", "phase": "rate_search"}
# Limits of the machine that TensorFlow reports by the error of too little memory.
_LIMITS = ("No space left", "Disk quota exceeded", "Too many open files")
_RESUME = (
    " To resume, give the same command again: training continues from its last checkpoint; a phase "
    "without one starts from the beginning."
)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the table.

    Attributes:
        module: in cnnrnn.commands.
        function: of that module; takes (arguments, config).
        groups: the groups of `Config` that the command reads.
        options: "arguments": it takes arguments besides flags. "cpu": it uses no GPU. "parent": it
            leaves the GPUs to its child processes. "no-tensorflow": likewise, and it runs without
            TensorFlow, to leave them the memory, too. "resumes": the same command resumes it.
            "workers": several processes can do it together.
            "recorded": its settings are those of a recorded run, so that run.sh adds no flags.txt.
        help: one line.
    """

    module: str
    function: str
    groups: tuple[str, ...]
    options: tuple[str, ...]
    help: str


def commands() -> dict[str, Command]:
    """The commands by name, without those that run.sh implements."""
    table = {}
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        word, target, groups, options, help_text = line.split("\t")
        if target != "-" and not word.startswith("#"):
            module, _, function = target.partition(":")
            table[word] = Command(
                module, function or "run", tuple(groups.split()), tuple(options.split()), help_text
            )
    return table


def main(argv: Sequence[str]) -> int:
    """Runs one command; reports errors of `errors` and OSError as one sentence on stderr.

    Args:
        argv: program name, command, flags.

    Returns:
        The exit code.
    """
    console.install()
    try:
        code = _run(list(argv))
        sys.stdout.flush()  # here, where a failure can be reported
        return code
    except errors.UsageError as error:
        return _fail(error, 2)
    except BrokenPipeError:  # e.g. `cnnrnn ... | head`
        _discard(sys.stdout)
        return 1
    except (errors.RunError, OSError) as error:
        return _fail(error, 1)
    except errors.Stopped as stopped:
        command = commands().get(_split(argv[1:])[0])
        resume = _RESUME if command and "resumes" in command.options else ""
        return _fail(f"stopped by {stopped}.{resume}", stopped.exit_code)


def _run(argv: list[str]) -> int:
    if "dataset" not in flags.FLAGS:
        config_lib.define_flags()
    word, arguments = _split(argv[1:])
    if word == "help" or (argv[1:2] != [word] and _HELP_FLAGS & set(arguments)):
        print(usage())
        return 0
    table = commands()
    command = table.get(word)
    if command is None:
        raise errors.UsageError(f"unknown command {word!r}: expected one of {', '.join(table)}.")
    if _HELP_FLAGS & set(arguments):
        print(usage(word))
        return 0
    try:
        positional = flags.FLAGS([argv[0], *arguments])[1:]
    except (flags.Error, ValueError) as error:  # ValueError: a flagfile that is not text
        raise errors.UsageError(f"{str(error).rstrip('.')}. See --help.") from error
    config = config_lib.from_flags()
    for name, group in _OBJECTS.items():
        if flags.FLAGS[name].present and group not in command.groups:
            readers = [other for other, each in table.items() if group in each.groups]
            raise errors.UsageError(
                f"--{name} is for {', '.join(readers)}: leave it out with {word}"
                f"{', which takes --run and --runs_dir' if name == 'model' else ''}."
            )
    if positional and "arguments" not in command.options:
        raise errors.UsageError(
            f"{word} takes flags only. Received: {positional[0]!r}. See --help."
        )
    takes_hours = "resumes" in command.options
    with stop_signals.dropping_output() if takes_hours else contextlib.nullcontext():
        code = _dispatch(word, command, positional, config)
        with stop_signals.tolerating_lost_output(sys.stdout):
            sys.stdout.flush()  # here, where it may be lost
        return code


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command, by default 'train', and its arguments."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    return _DEFAULT, list(arguments)


def _dispatch(word: str, command: Command, positional: list[str], config: config_lib.Config) -> int:
    options = command.options
    if "workers" not in options:
        if config.run.strategy == "multiworker":
            raise errors.UsageError(
                f"{word} runs on one machine: start it once, without --strategy=multiworker."
            )
        scheduler.hide()
    if "no-tensorflow" in options:
        _function(command)(positional, config)
        return 0
    uses_gpus = not {"cpu", "parent"} & set(options)
    quiet_tensorflow.import_tensorflow(uses_gpus=uses_gpus)
    import tensorflow as tf

    from cnnrnn.system import devices

    devices.configure(uses_gpus=uses_gpus, deterministic=config.run.deterministic)
    run = _function(command)
    try:
        run(positional, config)
    except tf.errors.ResourceExhaustedError as error:
        reason = text_lib.first_line(error)
        if any(text in reason for text in _LIMITS):
            raise errors.RunError(reason) from error
        has_batches = "training" in command.groups
        fix = f"{'use a smaller --batch_size, or ' if has_batches else ''}close other programs"
        raise errors.RunError(f"out of memory ({reason}): {fix}.") from error
    return 0


def _function(command: Command) -> Callable[[Sequence[str], config_lib.Config], None]:
    module = importlib.import_module(f"cnnrnn.commands.{command.module}")
    return getattr(module, command.function)


def examples(word: str) -> list[tuple[str, str]]:
    """The examples of a command, as (arguments, what it does)."""
    lines = _EXAMPLES.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.startswith(f"{word}\t")]
    return [
        (arguments, what)
        for _, arguments, what in rows
        # pip installs neither the recipes nor the flags of the sample.
        if text_lib.program() == "./run.sh" or not ("configs/" in arguments or "sample" in what)
    ]


def usage(word: str | None = None) -> str:
    """The help text of a command with its flags; of all commands and flags if `word` is None."""
    if word is not None:
        command = commands()[word]
        shown = "".join(
            f"  {text_lib.program()} {' '.join([word, arguments]).strip()}\n      {what}\n"
            for arguments, what in examples(word)
        )
        return f"{word}: {command.help}\n\nExamples:\n{shown}{_flags_help(command.groups)}"
    lines = "\n".join(f"  {name:<15}{command.help}" for name, command in commands().items())
    every_group = [field.name for field in dataclasses.fields(config_lib.Config)]
    return f"{__doc__}\nCommands (COMMAND --help lists the flags of one):\n{lines}\n" + _flags_help(
        every_group
    )


def _flags_help(groups: Sequence[str]) -> str:
    return (
        "\nFlags (a pair is PHASE1,PHASE2, and one value sets both; later flags override earlier "
        f"ones and a flagfile's):\n{config_lib.flags_help(groups)}"
    )


def _discard(stream: TextIO) -> None:
    """Makes what is left in the buffer of a stream that cannot be written go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(error: object, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk or a closed pipe, which may be the error itself
        _discard(sys.stdout)
    try:
        message = f"{console.styled('cnnrnn:', 'error', sys.stderr)} {error}"
        print(message, file=sys.stderr, flush=True)
    except OSError:  # a closed terminal
        _discard(sys.stderr)
    return code


def entry() -> None:
    """Entry point of the `cnnrnn` script and of `python -m cnnrnn.main`."""
    console.open_closed_streams()
    stop_signals.install()
    deletion.exit_process(main(sys.argv))


if __name__ == "__main__":
    entry()
