"""The command line: flags -> Config -> one command.

    python -m cnnrnn.main [COMMAND] --flagfile=flags.txt [--flag=value ...]

Exit codes: 0 done, 2 wrong use, 1 failed, 130 stopped by Ctrl-C, 143 by SIGTERM or
SIGHUP. TensorFlow is imported only once a command runs, so that --help and a mistyped flag answer
at once.
"""

import os
import sys
from collections.abc import Sequence

from absl import flags

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.system import quiet_tensorflow, stop_signals
from cnnrnn.system import text as text_lib

COMMANDS = {
    "train": "the whole recipe: phase 1, phase 2, evaluation (this is the default)",
    "phase1": "train the RNN branch and the head, with the CNN frozen",
    "phase2": "from phase 1's best weights, train everything",
    "evaluate": "measure the run's best weights on the whole validation split",
    "predict": "'predict PICTURES': the most likely classes of files, folders, patterns or -",
    "explain": "'explain PICTURES': where each branch found the classes, as PNGs",
    "export": "write the run's best weights as a SavedModel, a Keras file and LiteRT files",
    "serve": "put an export behind HTTP, with a page to drop a picture on",
    "preflight": "try both phases for a few steps: memory, speed, the time of the whole run",
    "verify-resume": "prove on this machine that a run killed at random ends as one in one go",
    "reproduce": "'reproduce RUN': compare what made a run with this machine, and make it again",
    "doctor": "examine every picture of a data set; a report of what is wrong or odd",
    "data": "prepare and describe a data set; 'data restructure SRC DST' turns the original "
    "tiny-imagenet layout into class folders",
}
_TRAINING = ("train", "phase1", "phase2")
_GO_ON = (
    " To go on give the same command again: training resumes from its last checkpoint, and a phase "
    "that has none yet begins anew."
)


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns the exit code; prints a user's mistake as one sentence."""
    try:
        return _run(list(argv))
    except errors.UsageError as error:
        return _fail(error, 2)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (errors.RunError, OSError) as error:
        return _fail(error, 1)
    except errors.Stopped as stopped:
        command, _ = _split(argv[1:])
        return _fail(
            f"stopped by {stopped}.{_GO_ON if command in _TRAINING else ''}", stopped.exit_code
        )


def _run(argv: list[str]) -> int:
    define_once()
    command, arguments = _split(argv[1:])
    if command not in COMMANDS:
        raise errors.UsageError(
            f"unknown command {command!r}: expected one of {', '.join(COMMANDS)}."
        )
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(arguments):
        print(usage())
        return 0
    try:
        positional = flags.FLAGS([argv[0], *arguments])[1:]
    except (flags.Error, ValueError) as error:  # ValueError: a flagfile is no text, or its path
        raise errors.UsageError(f"{str(error).rstrip('.')}. See --help.") from error
    config = config_lib.from_flags()
    if positional and command not in ("data", "reproduce", "predict", "explain"):
        raise errors.UsageError(
            f"{command} takes flags only. Received: {positional[0]!r}. See --help."
        )
    return _dispatch(command, positional, config)


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """The command word, which may be left out, and what follows it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return "train", arguments


def _dispatch(command: str, positional: list[str], config: config_lib.Config) -> int:
    if command == "preflight":
        # Without TensorFlow: each phase is tried in a process of its own, which imports it.
        from cnnrnn.commands import preflight

        preflight.run(config, _trial)
        return 0
    quiet_tensorflow.import_tensorflow()
    import tensorflow as tf

    try:
        _call(command, positional, config)
    except tf.errors.ResourceExhaustedError as error:
        raise errors.RunError(
            f"out of memory ({text_lib.first_line(error)}): give a smaller --batch_size."
        ) from error
    return 0


def _call(command: str, positional: list[str], config: config_lib.Config) -> None:
    if command == "data":
        from cnnrnn.commands import data

        data.run(positional, config)
    elif command == "serve":
        from cnnrnn.commands import serve

        serve.run(config)
    elif command == "explain":
        from cnnrnn.commands import explain

        explain.run(positional, config)
    elif command == "export":
        from cnnrnn.commands import export

        export.run(config)
    elif command == "predict":
        from cnnrnn.commands import predict

        predict.run(positional, config)
    elif command == "reproduce":
        from cnnrnn.commands import reproduce

        reproduce.run(positional, config)
    elif command == "doctor":
        from cnnrnn.commands import doctor

        doctor.run(config)
    elif command == "verify-resume":
        from cnnrnn.commands import verify_resume

        verify_resume.run(config)
    elif command == "evaluate":
        from cnnrnn.commands import evaluate

        evaluate.run(config)
    else:
        from cnnrnn.training import trainer

        trainer.run(command, config)


def _trial(phase: str, config: config_lib.Config):
    """The trial of a phase, as a process of its own begins it."""
    quiet_tensorflow.import_tensorflow()
    from cnnrnn.training import dry_run

    return dry_run.measure(phase, config)


def define_once() -> None:
    if "dataset" not in flags.FLAGS:
        config_lib.define_flags()


def usage() -> str:
    """The help text: commands, then every flag with its default."""
    commands = "\n".join(f"  {name:<15}{text}" for name, text in COMMANDS.items())
    return (
        f"{__doc__}\nCommands:\n{commands}\n\nFlags (a pair is PHASE1,PHASE2; one value stands for "
        f"both; a later flag wins over an earlier one and over the flagfile):\n"
        f"{flags.FLAGS.module_help('cnnrnn')}"
    )


def _fail(error: object, code: int) -> int:
    sys.stdout.flush()
    print(f"cnnrnn: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    stop_signals.install()
    sys.exit(main(sys.argv))
