"""A contestant as the bench sees it: a process that is told how many steps to train."""

import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).parent.parent


class Contestant:
    """A worker process; see `worker`.

    Args:
        command: what runs it.
        parameters: how many it must have: else it is another network.
        onednn: TF_ENABLE_ONEDNN_OPTS; None leaves the choice to TensorFlow or the program.

    Raises:
        SystemExit: it failed, or has another number of parameters.
    """

    def __init__(self, command: list[str], parameters: int, onednn: str | None = None):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
        if onednn is not None:
            environment["TF_ENABLE_ONEDNN_OPTS"] = onednn
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.gigabytes = 0.0
        found = self._answer()["parameters"]
        if found != parameters:
            self.close()
            raise SystemExit(f"{shlex.join(command)} has {found:,} parameters, not {parameters:,}")

    def seconds(self, steps: int) -> float:
        """The seconds of one step, measured over `steps`."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: `_answer` finds out why
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        answer = self._answer()
        self.gigabytes = answer["peak_bytes"] / 1e9
        return answer["seconds"] / steps

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        reason = "".join(self._errors.readlines()[-15:])
        self.close()
        raise SystemExit(f"{reason}\nfailed, exit {code}: {shlex.join(self._process.args)}")
