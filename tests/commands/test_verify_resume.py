"""The proof of exact resume: that it proves, and that it can fail."""

import os
import sys

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import verify_resume
from tests import helpers

SMALL = (sys.executable, str(helpers.REPOSITORY / "tests" / "small_network.py"))
DIGESTS = {"results": "a", "phase1 optimizer": "b"}


def test_two_runs_that_differ_are_told_of():
    told = []
    verify_resume._compare(DIGESTS, dict(DIGESTS), told.append)
    assert len(told) == 2 and all("the same" in line for line in told)
    for other in ({**DIGESTS, "results": "x"}, {"phase1 optimizer": "b"}, {**DIGESTS, "new": "c"}):
        with pytest.raises(errors.RunError, match="a killed run differs from one in one go: "):
            verify_resume._compare(DIGESTS, other, told.append)


def test_a_run_that_fails_is_told_of(images):
    failing = (sys.executable, "-c", "print('no disk'); raise SystemExit(1)")
    with pytest.raises(errors.RunError, match="exit code 1, saying: no disk"):
        verify_resume.run((), config.Config.of(dataset=str(images)), failing)


@pytest.mark.slow
def test_a_killed_run_of_the_small_network_equals_one_in_one_go(images, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(helpers.REPOSITORY))
    told = []
    settings = config.Config.of(dataset=str(images), xception_weights="none", kills=6)
    verify_resume.run((), settings, SMALL, told.append)
    assert told[-1].startswith("verdict  6 kills") and "DIFFERENT" not in "".join(told)


@pytest.mark.slow
def test_a_run_that_resumes_wrongly_is_found_out(images, monkeypatch, tmp_path):
    forgetful = tmp_path / "forgetful.py"
    forgetful.write_text(
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import numpy as np, small_network\n"
        "from cnnrnn import checkpoints, main, models\n"
        "models.build = small_network.small_build\n"
        "restore = checkpoints.Checkpoints.restore\n"
        "def forget(self):\n"
        "    folder = restore(self)\n"
        "    for variable in self._checkpoint.optimizer.variables[2:]:\n"
        "        variable.assign(np.zeros(variable.shape))\n"
        "    return folder\n"
        "checkpoints.Checkpoints.restore = forget\n"
        "sys.exit(main.main(sys.argv))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(helpers.REPOSITORY))
    program = (sys.executable, str(forgetful), os.path.dirname(SMALL[1]))
    settings = config.Config.of(dataset=str(images), xception_weights="none", kills=12)
    with pytest.raises(errors.RunError, match="differs from one in one go: .*optimizer"):
        verify_resume.run((), settings, program)
