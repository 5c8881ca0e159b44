"""The ways a run ends other than well.

Each reaches the user as one sentence and never as a traceback: `main` prints it and turns the
class into the exit code.
"""

import signal


class UsageError(ValueError):
    """The request cannot be carried out as given (exit code 2).

    The message names the offending value, says what was expected, and ends with the flag or the
    command that mends it.
    """


class RunError(RuntimeError):
    """The request was sound but something outside of it failed (exit code 1).

    For example no network, a full disk, an image that went bad, a loss that is not finite.
    """


class Stopped(BaseException):
    """A signal asked the program to stop (exit code 130 for SIGINT, else 143).

    As KeyboardInterrupt it is no Exception, so that nothing takes it for a failure on its way.
    """

    def __init__(self, signum: signal.Signals):
        super().__init__(signum.name)
        self.exit_code = 130 if signum == signal.SIGINT else 143
