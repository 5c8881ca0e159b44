"""The preflight, what a phase tells as it opens, and the memory that they ask for."""

import os
import subprocess
import sys
import time

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import preflight
from tests import helpers, small_network
from tests.commands import preflight_stand_ins

# --- preflight -----------------------------------------------------------------------------------


def test_the_table_says_what_the_whole_run_takes(capsys):
    preflight.run(config.Config(), preflight_stand_ins.ready_made)
    told = capsys.readouterr().out
    for words in (
        "phase 1                     phase 2",
        "4 images",
        "the CPU, float32",
        "a kernel",
        "3.1 GB",
        "23.0 GB",
        "5.0 images/s                -",
        "600 images: 2 min 00 s",
        "3 x 200 images: 1 min 00 s",
        "3 min 15 s                  4 min 10 s",
        "evaluation: 25 s",
        "whole run:  7 min 50 s (estimate",
    ):
        assert words in told


def test_a_killed_trial_is_survived_and_told(capsys):
    with pytest.raises(errors.RunError) as raised:
        preflight.run(config.Config.of(batch_size=(4, 64)), preflight_stand_ins.killed_in_phase2)
    message = str(raised.value)
    assert message.startswith("phase 2 at --batch_size=64 does not fit: the process was killed by")
    assert "Give a smaller --batch_size" in message
    if sys.platform == "linux":
        told = float(message.split("system at ")[1].split(" GB")[0])
        assert 0.3 <= told < 0.5
    assert "3 x 200 images" in capsys.readouterr().out  # what was found of phase 1


@pytest.mark.parametrize(
    "measure, kind, message",
    [
        (
            preflight_stand_ins.out_of_memory,
            errors.RunError,
            "phase 1 at --batch_size=4 does not fit: it ran out of",
        ),
        (preflight_stand_ins.wrong_use, errors.UsageError, "no such data set"),
        (preflight_stand_ins.crashing, errors.RunError, "ended with exit code 7"),
        (
            preflight_stand_ins.swapping,
            errors.RunError,
            "took 9.0 GB, and 8.0 GB were",
        ),
    ],
)
def test_what_goes_wrong_in_a_trial_is_one_sentence(measure, kind, message):
    with pytest.raises(kind, match=message):
        preflight.run(config.Config.of(batch_size=(4, 2)), measure)


def test_a_trial_ends_with_the_preflight():
    code = "from cnnrnn import config, preflight; import preflight_stand_ins as s; "
    code += "preflight.run(config.Config(), s.never_ending)"
    paths = [str(helpers.REPOSITORY), str(helpers.REPOSITORY / "tests")]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        trial_process = int(running.stdout.readline())
        running.kill()  # which leaves it no time to end the trial
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(trial_process, 0)
            time.sleep(0.05)


def test_the_trial_of_a_phase_leaves_nothing(small_config, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    found = preflight._in_own_process("phase2", small_config, preflight_stand_ins.small_trial)
    assert found.parameters == small_network.small_build(3).model.count_params()
    assert (found.batch_size, found.precision, found.features) == (2, "float32", None)
    assert (found.training.images, found.training.times) == (18, 2)
    assert (found.validation.images, found.validation.times) == (9, 2)
    assert found.training.rate > 0 and found.validation.rate > 0
    assert 10**8 < found.peak < 10**10
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not (config.cache_dir() / "features").exists()
