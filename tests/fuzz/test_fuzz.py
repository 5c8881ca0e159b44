"""Short runs of the fuzzers; `PYTHONPATH=. python tests/fuzz/NAME.py --count=N` for longer ones."""

import os
import subprocess
import sys

import pytest

from tests import helpers

FUZZERS = {"images": 200, "archives": 60, "checkpoints": 30, "flagfiles": 150}


SLOW = {"images", "checkpoints"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FUZZERS],
)
@pytest.mark.thorough
def test_damaged_input_is_read_correctly_or_refused(name):
    ended = subprocess.run(
        [sys.executable, f"tests/fuzz/{name}.py", f"--count={FUZZERS[name]}", "--seed=1"],
        cwd=helpers.REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(helpers.REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert f"{FUZZERS[name]:,} tried" in ended.stdout and "refused" in ended.stdout
