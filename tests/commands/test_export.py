"""`export`: its files, each used without this package."""

import errno
import pathlib
import re
import string
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import exports
from cnnrnn import errors
from cnnrnn.commands import export
from cnnrnn.export import bundle, keras_and_litert, loader, saved_model
from cnnrnn.models import network as network_lib
from cnnrnn.models import xception_weights
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.runs import run_folder
from cnnrnn.system import checksummed
from tests import cudnn, helpers, small_network
from tests.export import small_export

# The values in a model card.
CARD = dict.fromkeys(string.Template(bundle._CARD.read_text()).get_identifiers(), "?") | {
    "explained": 2,
    "cnn_image_size": 299,
    "validation_image_size": 299,
    "image_size": 299,
}


@pytest.fixture(scope="module")
def network():
    return small_export.sensitive_network()


@pytest.fixture(scope="module")
def plain(network):
    """The network in plain Keras by the size of the CNN's input."""
    return {size: keras_and_litert.plain_keras(network, size) for size in (299, 160)}


def test_the_keras_model_has_layers_of_keras_only(plain):
    layers = plain[299].layers[-2].layers
    assert any(isinstance(layer, keras.layers.LSTM) for layer in layers)
    kinds = {type(layer).__module__.split(".")[0] for layer in layers}
    assert kinds == {"keras"}


@pytest.mark.parametrize(
    "size, quantized, tolerance",
    [pytest.param(299, True, 0.01, marks=pytest.mark.thorough), (160, False, 1e-4)],
)
def test_litert_predictions_match_the_network(size, quantized, tolerance, network, plain):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    content = keras_and_litert.litert(plain[size], quantized)
    classify = interpreter.Interpreter(model_content=content).get_signature_runner()
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (1, 299, 299, 3)).astype(np.float32) for _ in range(2)]
    expected = [
        small_export.probabilities(network, pixels / 127.5 - 1.0, size) for pixels in images
    ]
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # not constant
    for pixels, probabilities in zip(images, expected, strict=True):
        predicted = classify(image=pixels)["probabilities"]
        np.testing.assert_allclose(predicted, probabilities, atol=tolerance)


def test_the_keras_model_of_a_variant_equals_the_network():
    variant = network_lib.Variant("concatenation", "standardized", True)
    network = small_network.small_build(3, variant=variant)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    found = keras_and_litert.plain_keras(network, 299)(images)
    np.testing.assert_allclose(found, small_export.probabilities(network, images), atol=1e-5)


def not_converted(model, quantized):
    """In place of a LiteRT file, what it is made of."""
    assert model.output_shape == (None, len(helpers.CLASSES))
    return f"{model.name}, {'quantized' if quantized else 'not quantized'}".encode()


@pytest.mark.thorough
def test_the_command_writes_all_files(small_network, trained, monkeypatch, capsys):
    folder = trained.run_dir / "export"
    with monkeypatch.context() as patch:  # tracing what is replaced takes seconds
        patch.setattr(keras_and_litert, "litert", lambda *_: b"earlier")
        patch.setattr(saved_model, "write", lambda *_, **__: None)
        export.run((), trained)
    with monkeypatch.context() as patch:  # test_litert_predictions... converts
        patch.setattr(keras_and_litert, "litert", not_converted)
        export.run((), trained)  # the earlier export is replaced
    assert (folder / "model.tflite").read_bytes() == b"cnnrnn, not quantized"
    assert (folder / "model_quantized.tflite").read_bytes() == b"cnnrnn, quantized"
    metadata = checksummed.read_metadata(folder)
    assert metadata["classes"] == 3 and metadata["run"] == "test"
    assert metadata["max_megapixels"] == "100"
    assert (folder / "classes.txt").read_text().splitlines() == list(helpers.CLASSES)
    card = (folder / "README.md").read_text()
    assert "$" not in card and metadata["top1"] in card and metadata["fingerprint"] in card
    assert loader.load(folder).metadata == metadata
    assert "model_quantized.tflite" in capsys.readouterr().out
    assert_a_failed_export_keeps_the_earlier_one(trained, folder, monkeypatch)
    (folder / "seal.json").unlink()
    with pytest.raises(errors.UsageError, match="is not an export"):
        export.run((), trained)


def assert_a_failed_export_keeps_the_earlier_one(config, folder, monkeypatch):
    def fail(*_):
        with pytest.raises(errors.UsageError, match="in use by process"):
            with run_folder.RunFolder(
                folder.parent
            ).opened():  # another process would remove the temporary files
                pass
        raise OSError(errno.ENOSPC, "No space left on device")

    before = checksummed.read_metadata(folder)
    monkeypatch.setattr(keras_and_litert, "litert", fail)
    monkeypatch.setattr(saved_model, "write", lambda *_, **__: None)
    with pytest.raises(errors.RunError, match="cannot export to .*No space left"):
        export.run((), config)
    assert checksummed.read_metadata(folder) == before
    assert not list(folder.parent.glob(".partial*"))


@pytest.mark.parametrize(
    "limit, recorded", [(100.0, "100"), (16.777216, "16.777216"), (1e-5, "1e-05")]
)
def test_the_limit_of_the_image_size_is_recorded_exactly(
    small_network, trained, tmp_path, limit, recorded
):
    settings = trained.replace(max_megapixels=limit)
    folder = run_folder.RunFolder(trained.run_dir)
    classifier = classifier_lib.load(trained.run_dir)
    metadata = bundle.describe(folder, classifier, settings)
    assert metadata["max_megapixels"] == recorded
    loader.check_max_megapixels(loader.Export({}, metadata), tmp_path, limit)


@pytest.mark.thorough
def test_an_export_made_on_a_gpu_has_no_operation_of_cudnn(small_network, trained, monkeypatch):
    """It would run on GPUs only, and LiteRT cannot convert it."""
    converted = []

    class Converter:
        def __init__(self, folder):
            converted.append(cudnn.saved_graph(pathlib.Path(folder)))

        def convert(self):
            return b""

    with monkeypatch.context() as patch:
        patch.setattr(tf.lite.TFLiteConverter, "from_saved_model", Converter)
        cudnn.pretend_gpu(patch)
        export.run((), trained)
    folder = trained.run_dir / "export"
    for graph in (cudnn.saved_graph(folder / "saved_model"), *converted):
        assert len(cudnn.nodes(graph)) > 100 and cudnn.cudnn_operations(graph) == []
    assert len(converted) == 2
    loaded = keras.saving.load_model(folder / "model.keras")
    layers = [layer for layer in loaded.layers[-2].layers if isinstance(layer, keras.layers.LSTM)]
    assert [layer.use_cudnn for layer in layers] == ["auto"] * 2  # fast on the user's GPU


@pytest.mark.thorough
def test_a_network_that_litert_cannot_convert_is_one_sentence(network, monkeypatch):
    cudnn.pretend_gpu(monkeypatch)
    model = keras_and_litert.plain_keras(network, 299)
    for layer in model.layers[-2].layers:
        if isinstance(layer, keras.layers.LSTM):
            layer.use_cudnn = True
    with pytest.raises(errors.RunError, match="cannot convert the network to LiteRT .*CudnnRNNV3"):
        keras_and_litert.litert(model, quantized=False)


@pytest.mark.slow
@pytest.mark.skipif(
    not helpers.REAL_ARCHIVE.is_file(), reason=f"{helpers.REAL_ARCHIVE} does not exist"
)
def test_full_size_exports_match_the_classifier_on_real_images(tmp_path):
    """The full-size network, in processes without this package."""
    network = network_lib.build(100)
    xception_weights.load_into(network.cnn, "imagenet")
    head = network.fusion.get_layer("logits")
    head.kernel.assign(head.kernel * 20)  # for confident predictions
    names = tuple(f"class {number}" for number in range(100))
    classifier = small_export.classifier(names, network)
    saved_model.write(classifier, tmp_path / "saved_model", top=5, max_pixels=10**8, metadata={})
    keras_and_litert.plain_keras(network, 299).save(tmp_path / "model.keras")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    with zipfile.ZipFile(helpers.REAL_ARCHIVE) as archive:
        files = sorted(name for name in archive.namelist() if "/val/images/val_1" in name)[:32]
        contents = [archive.read(name) for name in files]
    program, *exported = exports.measure(
        classifier, tmp_path, contents, np.zeros(32, int), names=("saved_model", "model.keras")
    )
    for row in exported:
        assert row.difference < 1e-6 and row.megabytes < 420, row


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 60, 3), (320, 310, 3)])
def test_the_code_of_the_model_card_prepares_an_image_as_training_does(
    network, tmp_path, monkeypatch, method, shape
):
    card = bundle._card(CARD | {"resize_method": method}, network)
    code = [line.strip() for line in card.splitlines() if line.startswith("    ")]
    code = "\n".join(line for line in code if line.startswith(("image =", "pixels =")))
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (tmp_path / "photo.jpg").write_bytes(helpers.png(image))
    monkeypatch.chdir(tmp_path)
    names = {"tf": tf}
    exec(code, names)
    pixels = names["pixels"]
    assert pixels.dtype == tf.float32 and pixels.shape == (1, 299, 299, 3)
    expected = views_lib.Preprocessing(method).rgb(tf.constant(image))
    np.testing.assert_allclose((pixels / 127.5 - 1)[0], expected, atol=1e-5)


@pytest.mark.parametrize("fusion, has_cnn, has_rnn", [("cnn", 1, 0), ("rnn", 0, 1), ("sum", 1, 1)])
def test_the_model_card_says_nothing_of_a_branch_that_the_network_lacks(fusion, has_cnn, has_rnn):
    network = small_network.small_build(3, variant=network_lib.Variant(fusion))
    card = bundle._card(CARD, network)
    for text in ("Grad-CAM", "size of the CNN", "CNN input 299x299"):
        assert (text in card) == has_cnn
    assert ("`timesteps` (B, 2, 23)" in card) == has_rnn and "\n\n| validation" not in card


@pytest.mark.parametrize(
    "fusion, words",
    [
        ("product", "with two branches: .* features are multiplied, and"),
        ("mine", r"with two branches: .* features are joined \(mine\), and"),
        ("cnn", "with one branch, an Xception; a dense layer"),
    ],
)
def test_the_model_card_describes_the_network_also_of_a_fusion_of_ones_own(fusion, words):
    assert re.match(words, bundle._network(fusion))
