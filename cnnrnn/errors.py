"""Exceptions that end a command with one sentence and an exit code, and without a traceback."""

import signal


class UsageError(ValueError):
    """The request cannot be carried out as given (exit code 2).

    The message names the value and what was expected, and ends with the flag or the command that
    fixes it.
    """


class RunError(RuntimeError):
    """The request was valid but could not be completed (exit code 1).

    For example no network, a full disk, a damaged file, a loss that is not finite.
    """


class Stopped(BaseException):
    """A signal stopped the program (exit code 130 for SIGINT, else 143).

    Like KeyboardInterrupt it is not an Exception, so that `except Exception` does not catch it.
    """

    def __init__(self, signum: signal.Signals):
        super().__init__(signum.name)
        self.exit_code = 130 if signum == signal.SIGINT else 143
