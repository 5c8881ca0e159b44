"""Settings that a network of a comparison was started with."""

import pytest

from cnnrnn import errors
from cnnrnn.runs import fixed_settings, run_folder

GIVEN = {"images": "abc", "--epochs": [3], "--a": 1, "--b": 2, "--c": 3}


@pytest.fixture
def started(tmp_path):
    """The folder of a network whose training has begun with the settings GIVEN."""
    folder = run_folder.RunFolder(tmp_path / "runs" / "network")
    fixed_settings.check(folder, GIVEN, is_complete=False)
    fixed_settings.record(folder, GIVEN)
    folder.best.mkdir()
    (folder.best / "phase1.json").write_text("{}")
    return folder


def test_other_settings_are_named(started):
    fixed_settings.check(started, GIVEN, is_complete=False)
    with pytest.raises(errors.UsageError, match=r"with --epochs: \[3\] \(now \[5\]\)\. Give"):
        fixed_settings.check(started, GIVEN | {"--epochs": [5]}, is_complete=False)
    others = {name: "x" * 1000 for name in GIVEN}
    with pytest.raises(errors.UsageError, match=r"images: abc .*--a: 1 .*, and 2 more differ"):
        fixed_settings.check(started, others, is_complete=False)
    # A setting that a later version adds has no recorded value.
    fixed_settings.check(started, GIVEN | {"--new": 1}, is_complete=False)


def test_settings_do_not_change_while_a_network_resumes(started):
    fixed_settings.record(started, GIVEN | {"--epochs": [5]})
    fixed_settings.check(started, GIVEN, is_complete=False)


def test_a_mistake_before_training_does_not_bind_the_folder(tmp_path):
    folder = run_folder.RunFolder(tmp_path / "network")
    fixed_settings.record(folder, {"--epochs": [0]})
    fixed_settings.check(folder, GIVEN, is_complete=False)
    fixed_settings.record(folder, GIVEN)
    with pytest.raises(errors.UsageError, match=r"trained with --epochs: \[3\]"):
        fixed_settings.check(folder, {"--epochs": [0]}, is_complete=True)


def test_a_damaged_record_is_one_sentence(started):
    (started.root / "settings.json").write_text("{")
    with pytest.raises(errors.UsageError, match="settings.json is damaged"):
        fixed_settings.check(started, GIVEN, is_complete=False)


def test_networks_of_earlier_versions_are_refused(started):
    (started.root / "settings.json").unlink()
    with pytest.raises(errors.UsageError, match="was trained by an earlier version"):
        fixed_settings.check(started, GIVEN, is_complete=False)
