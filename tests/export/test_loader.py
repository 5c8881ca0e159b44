"""Loading an export: only with a manifest of one, unless the user trusts it."""

import shutil
import types

import pytest
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.export import loader
from cnnrnn.system import checksummed

METADATA = {"classes": 3, "top": 2, "resize_method": "bilinear"}  # of the shared export


@pytest.fixture
def export(shared_export, tmp_path):
    return shutil.copytree(shared_export, tmp_path / "export")


@pytest.fixture
def never_loaded(monkeypatch):
    """Fails if TensorFlow loads a SavedModel."""
    monkeypatch.setattr(tf.saved_model, "load", lambda *_: pytest.fail("it was loaded"))


def test_signatures_and_metadata_are_loaded(export):
    loaded = loader.load(export)
    assert {"serving_default", "explained", "decoded", "about"} <= set(loaded.signatures)
    assert loaded.metadata == METADATA


def test_other_folders_are_refused(tmp_path, never_loaded):
    with pytest.raises(errors.UsageError, match="is not an export: run ./run.sh export"):
        loader.load(tmp_path)


def test_a_path_with_wildcards_is_refused(tmp_path, never_loaded):
    (tmp_path / "cats [v1]" / "saved_model").mkdir(parents=True)
    with pytest.raises(errors.UsageError, match="interprets as wildcards: move or rename it"):
        loader.load(tmp_path / "cats [v1]")


def test_an_export_without_a_manifest_is_refused(export, never_loaded):
    (export / checksummed.CHECKSUMS).unlink()
    with pytest.raises(errors.UsageError, match="runs as a program.*give --trust_export"):
        loader.load(export)


def test_the_manifest_of_another_kind_of_folder_is_refused(export, never_loaded):
    files = checksummed.read_json(export / checksummed.CHECKSUMS)["files"]
    checksummed.write_json(export / checksummed.CHECKSUMS, {"notes": {"step": 1}, "files": files})
    with pytest.raises(errors.UsageError, match="missing metadata: classes, resize_method, top"):
        loader.load(export)


@pytest.mark.parametrize("name", ["saved_model/saved_model.pb", "seal.json"])
def test_a_changed_file_is_refused(export, never_loaded, name):
    with open(export / name, "ab") as file:
        file.write(b"x")
    with pytest.raises(errors.RunError, match="is damaged: .*export again"):
        loader.load(export)


def test_files_that_are_not_loaded_may_be_missing_or_edited(shared_export, tmp_path, monkeypatch):
    signatures = dict.fromkeys(("serving_default", "explained", "about"))
    loaded = types.SimpleNamespace(signatures=signatures)
    monkeypatch.setattr(tf.saved_model, "load", lambda _: loaded)
    with checksummed.writing(tmp_path / "export", METADATA) as temporary:
        shutil.copytree(shared_export / "saved_model", temporary / "saved_model")
        for name in ("README.md", "model.tflite"):
            (temporary / name).write_text("written by export")
    (tmp_path / "export" / "README.md").write_text("edited")
    (tmp_path / "export" / "model.tflite").unlink()
    assert loader.load(tmp_path / "export").metadata == METADATA
    (tmp_path / "export" / "saved_model" / "saved_model.pb").unlink()
    with pytest.raises(errors.RunError, match="damaged: saved_model/saved_model.pb is missing"):
        loader.load(tmp_path / "export")


def test_a_file_that_is_not_in_the_manifest_is_refused(export, never_loaded):
    (export / "saved_model" / "saved_model.pbtxt").write_text("")
    with pytest.raises(errors.RunError, match="saved_model.pbtxt is not listed in seal.json"):
        loader.load(export)


@pytest.mark.thorough
def test_a_trusted_export_needs_no_manifest(export):
    (export / checksummed.CHECKSUMS).unlink()
    loaded = loader.load(export, trusted=True)
    assert loaded.metadata == METADATA


def test_a_trusted_saved_model_must_be_one_of_an_export(tmp_path):
    module = tf.Module()
    module.serve = tf.function(lambda: {"x": tf.constant(1)}, input_signature=[])
    tf.saved_model.save(module, str(tmp_path / "saved_model"), {"serving_default": module.serve})
    with pytest.raises(errors.UsageError, match="missing signatures: about, explained"):
        loader.load(tmp_path, trusted=True)


@pytest.mark.parametrize("returned", [{"notes": "{}"}, {"metadata": "no JSON"}, {"metadata": "[]"}])
def test_a_trusted_export_of_another_version_is_refused(tmp_path, returned):
    module = tf.Module()
    module.about = tf.function(
        lambda: {name: tf.constant(text) for name, text in returned.items()}, input_signature=[]
    )
    signatures = dict.fromkeys(("serving_default", "explained", "about"), module.about)
    tf.saved_model.save(module, str(tmp_path / "saved_model"), signatures)
    with pytest.raises(errors.UsageError, match="missing metadata: classes, resize_method, top"):
        loader.load(tmp_path, trusted=True)


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
def test_a_truncated_trusted_export_is_refused(export, name):
    path = export / "saved_model" / name
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(errors.RunError, match="is damaged: .*run.sh export again"):
        loader.load(export, trusted=True)


@pytest.mark.parametrize("metadata, size", [({}, 299), ({"cnn_image_size": 160}, 160)])
def test_another_image_size_is_refused(metadata, size, tmp_path):
    export = loader.Export({}, metadata)
    for asked in (0, size):
        loader.check_image_size(export, tmp_path, asked)
    with pytest.raises(errors.UsageError, match=f"size=224: .* for {size}. .*leave out the flag"):
        loader.check_image_size(export, tmp_path, 224)


def test_an_export_is_accepted_with_the_limit_that_it_was_made_with(tmp_path):
    for recorded in ("16.777216", "16.7772"):  # the second by an earlier version
        export = loader.Export({}, {"max_megapixels": recorded})
        for asked in (16.777216, 100.0):
            loader.check_max_megapixels(export, tmp_path, asked)
    exact = loader.Export({}, {"max_megapixels": "16.777216"})
    with pytest.raises(errors.UsageError, match=r"--max_megapixels=16.777217: .*=16.777217, or"):
        loader.check_max_megapixels(exact, tmp_path, 16.777217)
