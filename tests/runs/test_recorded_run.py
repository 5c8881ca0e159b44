"""A trained run: found by path and by name, and its recorded settings."""

import json

import pytest

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.runs import recorded_run, run_folder


@pytest.fixture
def root(tmp_path):
    settings = config_lib.Config.of(strategy="multiworker", learning_rate=(0.5, 0.1)).to_json()
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "manifest.json").write_text("{}")
    (tmp_path / "first" / "config.json").write_text(json.dumps({"phase1": settings}))
    return tmp_path / "first"


def test_a_run_is_found_by_its_path_and_by_its_name(root):
    config = config_lib.Config.of(runs_dir=str(root.parent))
    for name in (str(root), "first"):
        assert recorded_run.find([name], "average RUN", config).root == root
    for arguments, message in (
        ([], "expected one run: average RUN. Received: nothing"),
        (["a", "b"], "expected one run: average RUN. Received: a b"),
        (["second"], "second is not a run"),
    ):
        with pytest.raises(errors.UsageError, match=message):
            recorded_run.find(arguments, "average RUN", config)


def test_the_settings_are_for_one_process(root):
    settings = recorded_run.settings(run_folder.RunFolder(root), phases.PHASE1)
    assert settings.optimization.learning_rate == (0.5, 0.1)
    assert settings.run.strategy == "auto"


def test_settings_that_are_missing_or_damaged_are_named(root):
    folder = run_folder.RunFolder(root)
    with pytest.raises(errors.UsageError, match="config.json is damaged.*phase2"):
        recorded_run.settings(folder, phases.PHASE2)
    (root / "config.json").write_text('{"phase1": {"learning_rate": ["a", "b"]}}')
    with pytest.raises(errors.UsageError, match="config.json is damaged"):
        recorded_run.settings(folder, phases.PHASE1)
