"""Making a run again: that it compares, and that it can fail."""

import json
import sys

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import reproduce, train
from cnnrnn.runs import run_folder
from tests import helpers

SMALL = (sys.executable, "-P", str(helpers.REPOSITORY / "tests" / "small_network.py"))


@pytest.fixture
def trained(small_network, small_config, one_replica, monkeypatch):
    monkeypatch.setattr(reproduce, "_PROGRAM", SMALL)
    monkeypatch.setenv("PYTHONPATH", f"{helpers.REPOSITORY}:{helpers.REPOSITORY / 'tests'}")
    wanted = small_config.replace(epochs=(1, 1))
    train.phase1((), wanted)
    return wanted


def reproduced(wanted):
    lines = []
    try:
        reproduce.run([wanted.run], wanted, SMALL, lines.append)
    except errors.RunError as error:
        lines.append(str(error))
    return "\n".join(lines)


def test_a_run_that_is_made_again_is_the_same_to_the_bit(trained):
    told = reproduced(trained)
    assert (
        told.endswith("was reproduced, to the bit") and "difference of this machine: none" in told
    )


def test_what_has_changed_is_named_and_so_is_what_came_of_it(trained):
    folder = run_folder.RunFolder(trained.run_dir)
    for name, change in (
        ("manifest.json", lambda m: m["phase1"]["packages"].update(keras="3.0.0")),
        ("config.json", lambda c: c["phase1"].update(seed=5)),
    ):
        record = json.loads((folder.root / name).read_text())
        change(record)
        (folder.root / name).write_text(json.dumps(record))
    told = reproduced(trained)
    assert "packages.keras: 3.0.0 then, 3.15" in told and "seed: 0 then, 5 now" in told
    assert "was not reproduced to the bit: phase1" in told


def test_what_is_no_run_is_refused(tmp_path):
    for arguments in ([], ["a", "b"], [str(tmp_path)]):
        with pytest.raises(errors.UsageError):
            reproduce.run(arguments, config.Config.of(runs_dir=str(tmp_path)))
