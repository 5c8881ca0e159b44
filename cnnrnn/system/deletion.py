"""Deletion of objects whose destructors take long; the process does not wait for it."""

import os
import sys
import threading

_NAME = "deletion"


def in_background(references: list) -> None:
    """Empties a list, which holds the only references to some objects, in a thread."""
    if not sys.is_finalizing():  # a thread can be started
        # Not a daemon: one that is at work while the interpreter ends aborts the process.
        threading.Thread(target=references.clear, name=_NAME).start()


def exit_process(code: int) -> None:
    """Ends the process with an exit code, like sys.exit, but at once if a deletion is under way.

    The interpreter would wait for it. Called when all files are written and closed.
    """
    if any(thread.name == _NAME for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
