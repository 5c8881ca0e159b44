"""The benchmark's side of a worker process."""

import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).parent.parent


class Contestant:
    """A running worker process; `benchmarks.worker` describes the protocol.

    Args:
        command: starts the worker.
        parameters: the expected number; any other means that it is not the same network.
        onednn: value of TF_ENABLE_ONEDNN_OPTS; None leaves the choice to TensorFlow or cnnrnn.

    Attributes:
        gigabytes: peak resident memory, once `seconds` was called.

    Raises:
        SystemExit: the worker failed, or its network has another number of parameters.
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
        actual = self._read()["parameters"]
        if actual != parameters:
            self.close()
            raise SystemExit(f"{shlex.join(command)} has {actual:,} parameters, not {parameters:,}")

    def seconds(self, steps: int) -> float:
        """Trains `steps` steps; returns the mean seconds per step."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: `_read` reports why
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        response = self._read()
        self.gigabytes = response["peak_bytes"] / 1e9
        return response["seconds"] / steps

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> dict:
        """The worker's next response; if it has ended, SystemExit with the end of its log."""
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        reason = "".join(self._errors.readlines()[-15:])
        self.close()
        raise SystemExit(f"{reason}\nfailed, exit {code}: {shlex.join(self._process.args)}")
