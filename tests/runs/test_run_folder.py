"""Run folder: opening, records of settings and manifest, damage to them."""

import concurrent.futures
import json
import os
import sys
import types

import pytest

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.runs import run_folder
from cnnrnn.system import atomic_files


class Split:
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def describe(self, index):
        return self.names[index]


DATA = types.SimpleNamespace(
    fingerprint="f" * 64,
    class_names=("cat", "dog"),
    split_here=True,
    train=Split(["cat/1.png", os.fsdecode(b"dog/\xff.png")]),
    validation=Split(["cat/2.png"]),
)
OTHER_DATA = types.SimpleNamespace(fingerprint="e" * 64)
CONFIG = config_lib.Config.of(precision="float32", batch_size=(4, 2))


@pytest.fixture
def folder(tmp_path):
    return run_folder.RunFolder(tmp_path / "runs" / "run")


@pytest.fixture
def begun(folder):
    """A folder in which phase 1 has a checkpoint."""
    with folder.opened():
        folder.record(phases.PHASE1, CONFIG, DATA)
        (folder.checkpoints(phases.PHASE1) / "00000001").mkdir(parents=True)
    return folder


def test_opening_creates_the_folder_and_leaves_nothing_in_it_if_unused(folder):
    with folder.opened():
        assert [path.name for path in folder.root.iterdir()] == [".lock"]
    assert not folder.root.exists()


def test_opening_cleans_up_after_killed_processes(begun):
    events = begun.events(phases.PHASE1, "train")
    test = run_folder.RunFolder(begun.root, "test-other").evaluation
    folders = (begun.root, begun.best, begun.checkpoints(phases.PHASE1), begun.evaluation)
    for parent in (*folders, events, test):
        (parent / ".partial-1-x").mkdir(parents=True)
    with begun.opened():
        pass
    assert not list(begun.root.rglob(".partial-*"))


def test_a_rate_that_falls_now_is_named_by_its_schedule(begun):
    changed = CONFIG.replace(schedule=("cosine", "cosine"))
    with pytest.raises(errors.UsageError, match="--schedule=constant .now cosine."):
        begun.check(phases.PHASE1, changed, DATA)


def test_a_run_that_has_lost_its_settings_is_refused(begun):
    path = begun.root / "config.json"
    recorded = json.loads(path.read_text())
    path.write_text(json.dumps({"data": recorded["data"]}))
    with pytest.raises(errors.UsageError, match="config.json does not record the settings of ph"):
        begun.check(phases.PHASE1, CONFIG, DATA)
    path.unlink()
    for check in (lambda: begun.check(phases.PHASE1, CONFIG, DATA),
                  lambda: begun.check_data(CONFIG, OTHER_DATA)):  # fmt: skip
        with pytest.raises(errors.UsageError, match="config.json does not record the images"):
            check()


def test_flags_that_choose_the_images_are_named_if_the_images_differ(begun):
    with pytest.raises(errors.UsageError, match="--bad_images=stop --max_megapixels="):
        begun.check(phases.PHASE1, CONFIG, OTHER_DATA)
    path = begun.root / "config.json"  # as of an earlier version
    recorded = json.loads(path.read_text())
    del recorded["data"]["bad_images"], recorded["data"]["max_megapixels"]
    recorded["phase1"]["bad_images"] = "skip"
    path.write_text(json.dumps(recorded))
    with pytest.raises(errors.UsageError, match="--bad_images=skip --max_megapixels="):
        begun.check(phases.PHASE1, CONFIG, OTHER_DATA)


def test_of_simultaneous_starts_one_succeeds_and_the_others_are_refused(folder):
    """Some used to fail when another one removed the file that checks writability."""

    def open_and_close(_):
        try:
            with folder.opened():
                return "opened"
        except errors.UsageError as error:
            assert "is in use by" in str(error)
            return "refused"

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        outcomes = set(pool.map(open_and_close, range(2000)))
    assert outcomes == {"opened", "refused"}


def test_a_start_between_another_ones_check_of_writability_is_refused(folder, monkeypatch):
    write_text = atomic_files.write_text

    def interleaved(path, text):
        write_text(path, text)
        with pytest.raises(errors.UsageError, match="is in use by"):
            with run_folder.RunFolder(folder.root).opened():
                pass

    monkeypatch.setattr(atomic_files, "write_text", interleaved)
    with folder.opened():
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.RunError, match="cannot write to the run folder .*--runs_dir"):
        with run_folder.RunFolder(tmp_path / "file" / "run").opened():
            pass


def test_a_path_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(errors.UsageError, match="is not UTF-8.*give another --runs_dir") as raised:
        with run_folder.RunFolder(tmp_path / "\udcff").opened():
            pass
    str(raised.value).encode()  # can be printed
    assert not list(tmp_path.iterdir())


def test_a_path_that_the_locale_encodes_otherwise_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(errors.UsageError, match="is not UTF-8.*--runs_dir.*set PYTHONUTF8=1"):
        with run_folder.RunFolder(tmp_path / "été").opened():
            pass
    with run_folder.RunFolder(tmp_path / "summer").opened():
        pass
    assert not list(tmp_path.iterdir())


def test_wildcards_in_the_path_are_refused(tmp_path):
    with pytest.raises(errors.UsageError, match=r"one of \* \? \[ \] in its path"):
        with run_folder.RunFolder(tmp_path / "a*b").opened():
            pass


DAMAGED_JSON = (b"", b'{"phase1": {"seed"', b"[1]", b'{"phase1": 3}', b"\xff\xfe\x00")


@pytest.mark.parametrize("content", DAMAGED_JSON)
def test_a_damaged_manifest_is_reported_when_the_folder_is_opened(begun, content):
    (begun.root / "manifest.json").write_bytes(content)
    with pytest.raises(errors.RunError, match=r"manifest\.json is damaged \(.*delete it"):
        with begun.opened():
            pytest.fail("opened")


@pytest.mark.parametrize("content", DAMAGED_JSON)
def test_a_damaged_config_is_reported_when_the_folder_is_opened(begun, content):
    (begun.root / "config.json").write_bytes(content)
    with pytest.raises(errors.UsageError, match=r"config\.json cannot be read"):
        with begun.opened():
            pytest.fail("opened")


def test_a_run_without_a_manifest_can_be_opened(begun):
    with begun.opened():
        assert begun.manifest() == {}


def test_the_manifest_has_an_entry_for_each_phase(folder):
    folder.write_manifest(phases.PHASE1, {"seed": 1})
    folder.write_manifest(phases.PHASE2, {"seed": 2})
    folder.write_manifest(phases.PHASE1, {"seed": 3})
    assert folder.manifest() == {"phase1": {"seed": 3}, "phase2": {"seed": 2}}


def test_the_same_settings_and_images_are_accepted(begun):
    begun.check(phases.PHASE1, CONFIG, DATA)
    begun.check(phases.PHASE1, CONFIG.replace(epochs=(9, 9), checkpoint_minutes=1.0), DATA)
    begun.check(phases.PHASE2, CONFIG.replace(batch_size=(8, 8)), DATA)  # it has not begun


@pytest.mark.parametrize(
    "flag, values", [("eval_image_size", (0, 299)), ("batchnorm_momentum", ("0.99", "0.990"))]
)
def test_other_ways_to_write_a_setting_are_accepted(folder, flag, values):
    for recorded, given in (values, values[::-1]):
        folder.record(phases.PHASE2, CONFIG.replace(**{flag: recorded}), DATA)
        (folder.checkpoints(phases.PHASE2) / "00000001").mkdir(parents=True, exist_ok=True)
        folder.check(phases.PHASE2, CONFIG.replace(**{flag: given}), DATA)


def test_a_setting_of_the_other_phases_optimizer_may_change(folder):
    recorded = CONFIG.replace(optimizer=("rmsprop", "adamw"))
    changed = recorded.replace(weight_decay=0.5)
    for phase in (phases.PHASE1, phases.PHASE2):
        folder.record(phase, recorded, DATA)
        (folder.checkpoints(phase) / "00000001").mkdir(parents=True)
    folder.check(phases.PHASE1, changed, DATA)
    with pytest.raises(errors.UsageError, match="--weight_decay=0.01 .now 0.5."):
        folder.check(phases.PHASE2, changed, DATA)


@pytest.mark.parametrize("sizes", ["wide", 299, None, "160:0.5:x"])
def test_a_damaged_image_size_is_one_sentence(begun, sizes):
    path = begun.root / "config.json"
    recorded = json.loads(path.read_text())
    recorded["phase1"]["cnn_image_size"] = sizes
    path.write_text(json.dumps(recorded))
    with pytest.raises(errors.UsageError, match="config.json is incomplete or damaged"):
        begun.check(phases.PHASE1, CONFIG, DATA)


def test_settings_of_earlier_versions_are_ignored(begun):
    path = begun.root / "config.json"
    recorded = json.loads(path.read_text())
    recorded["phase1"] |= {"port": 8501, "kills": 5, "removed": "long ago"}
    path.write_text(json.dumps(recorded))
    begun.check(phases.PHASE1, CONFIG, DATA)


def test_settings_that_earlier_versions_did_not_have_are_those_they_trained_with(begun):
    path = begun.root / "config.json"
    recorded = json.loads(path.read_text())
    assert recorded["phase1"].pop("deterministic") is False
    assert recorded["phase1"].pop("lstm_kernel") == "auto"
    path.write_text(json.dumps(recorded))
    begun.check(phases.PHASE1, CONFIG, DATA)
    with pytest.raises(errors.UsageError, match="--deterministic=False .now True."):
        begun.check(phases.PHASE1, CONFIG.replace(deterministic=True), DATA)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": (2, 2)}, "--batch_size=4 .now 2."),
        ({"learning_rate": (0.1, 1e-4)}, "--learning_rate=0.001 .now 0.1."),
        ({"seed": 1}, "--seed=0 .now 1."),
        ({"xception_weights": "none"}, "--xception_weights=imagenet .now none."),
        ({"init_from": "runs/other"}, "--init_from='' .now runs/other."),
        ({"lstm_kernel": "ours"}, "--lstm_kernel=auto .now ours."),
        ({"resize_method": "area"}, "--resize_method=bilinear"),
    ],
)
def test_other_settings_are_refused(begun, change, message):
    with pytest.raises(errors.UsageError, match=f"was created with .*{message}"):
        begun.check(phases.PHASE1, CONFIG.replace(**change), DATA)


def test_other_images_are_refused(begun):
    with pytest.raises(
        errors.UsageError, match="other images .fingerprint f{12}, now e{12}.*digits"
    ):
        begun.check_data(CONFIG, OTHER_DATA)


@pytest.mark.parametrize(
    "group, name", [("phase1", "seed"), ("data", "fingerprint"), ("data", "split_seed")]
)
def test_a_config_without_a_setting_is_one_sentence(begun, group, name):
    path = begun.root / "config.json"
    recorded = json.loads(path.read_text())
    del recorded[group][name]
    path.write_text(json.dumps(recorded))
    with pytest.raises(errors.UsageError, match=f"incomplete or damaged .*{name}"):
        begun.check(phases.PHASE1, CONFIG, DATA)


def test_the_split_is_listed_once(begun):
    path = begun.root / "split.tsv"
    assert path.read_text(encoding="utf-8").splitlines() == [
        f"# fingerprint {DATA.fingerprint}",
        "split\timage",
        "train\tcat/1.png",
        "train\tdog/\\udcff.png",
        "validation\tcat/2.png",
    ]
    before = path.stat().st_ino
    begun.record(phases.PHASE1, CONFIG, DATA)
    assert path.stat().st_ino == before
    path.write_bytes(b"\xff")
    begun.record(phases.PHASE1, CONFIG, DATA)
    assert path.read_text(encoding="utf-8").startswith("# fingerprint ")
