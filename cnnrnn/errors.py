"""The two ways a run ends other than well.

Both reach the user as one sentence and never as a traceback: `main` prints the message and turns
the class into the exit code.
"""


class UsageError(ValueError):
    """The request cannot be carried out as given (exit code 2).

    The message names the offending value, says what was expected, and ends with the flag or the
    command that mends it.
    """


class RunError(RuntimeError):
    """The request was sound but something outside of it failed (exit code 1).

    For example no network, a full disk, a picture that went bad, a loss that is not finite.
    """
