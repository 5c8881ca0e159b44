"""The exported SavedModel in this process, and with the Keras file in one without this package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn.export import keras_and_litert, saved_model
from cnnrnn.models import attribution
from cnnrnn.models import network as network_lib
from tests import bad_images, small_network
from tests.export import small_export

# In a folder with model.keras, views.npy and images/; in the session, the first of the images and
# one that is no image.
STANDALONE = """
import sys, json, pathlib
import tensorflow as tf
v1 = tf.compat.v1
images = [path.read_bytes() for path in sorted(pathlib.Path("images").iterdir())]
signatures = tf.saved_model.load(sys.argv[1]).signatures
loaded = signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
loaded = {name: value.numpy() for name, value in loaded.items()}
# As in TensorFlow Serving: in a session, with no operation that needs Python.
with v1.Session(graph=tf.Graph()) as session:
    model = v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = model.signature_def["serving_default"]
    fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
    feeds = {signature.inputs["image_bytes"].name: [images[0], b"no image"]}
    in_session = session.run(fetches, feeds)
    nodes = [node for function in model.graph_def.library.function for node in function.node_def]
    assert nodes and not [node.op for node in nodes if "Py" in node.op]
import keras, numpy as np
model = keras.saving.load_model("model.keras")
np.save("predictions.npy", model.predict(np.load("views.npy"), verbose=0))
assert "cnnrnn" not in sys.modules
for outputs in (loaded, in_session):
    print(json.dumps({name: value.tolist() for name, value in outputs.items()},
                     default=lambda b: b.decode()))
"""
GOOD = sorted(set(bad_images.FILES) - bad_images.BAD)


@pytest.fixture(scope="module")
def classifier():
    return small_export.classifier(small_export.NAMES)


@pytest.fixture(scope="module")
def exported(shared_export):
    return shared_export / "saved_model"


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def reference(classifier, contents):
    """Probabilities of encoded images, computed without the export."""
    views = [classifier.views(tf.constant(content)) for content in contents]
    batch = {name: tf.stack([view[name] for view in views]) for name in views[0]}
    return classifier.probabilities(batch).numpy()


@pytest.fixture(scope="module")
def standalone(exported, tmp_path_factory):
    """In a process without this package: outputs of the loaded SavedModel, of the SavedModel in a
    session, and of the Keras file; and what is expected of the Keras file.
    """
    folder = tmp_path_factory.mktemp("standalone")
    (folder / "images").mkdir()
    for number, name in enumerate(GOOD):
        (folder / "images" / f"{number:03d}").write_bytes(bad_images.FILES[name][0])
    network, size = small_export.sensitive_network(), 160
    keras_and_litert.plain_keras(network, size).save(folder / "model.keras")
    views = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    np.save(folder / "views.npy", views)
    hidden = ("PYTHONPATH", "KERAS_BACKEND")  # the latter is set by this package
    process = subprocess.run(
        [sys.executable, "-c", STANDALONE, str(exported)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    loaded, in_session = map(json.loads, process.stdout.splitlines())
    expected = small_export.probabilities(network, views, size)
    return loaded, in_session, np.load(folder / "predictions.npy"), expected


def test_the_keras_file_needs_keras_only(standalone):
    *_, predictions, expected = standalone
    np.testing.assert_allclose(predictions, expected, atol=1e-5)


def test_predictions_in_a_session_match_the_classifier(classifier, standalone):
    _, outputs, *_ = standalone
    expected = reference(classifier, [bad_images.FILES[GOOD[0]][0]])
    assert [bool(error) for error in outputs["error"]] == [False, True]
    np.testing.assert_allclose(outputs["probabilities"][:1], -np.sort(-expected)[:, :2], atol=1e-6)
    assert outputs["classes"][0][0] == small_export.NAMES[expected.argmax()] and outputs["classes"][
        1
    ] == [
        "",
        "",
    ]


def test_predictions_in_another_process_match_the_classifier(classifier, standalone):
    outputs, *_ = standalone
    expected = reference(classifier, [bad_images.FILES[name][0] for name in GOOD])
    assert outputs["error"] == [""] * len(GOOD)
    np.testing.assert_allclose(outputs["probabilities"], -np.sort(-expected)[:, :2], atol=1e-6)
    assert [first for first, _ in outputs["classes"]] == [
        small_export.NAMES[label] for label in expected.argmax(1)
    ]


def test_a_bad_image_does_not_affect_the_others(classifier, signatures):
    names = sorted(bad_images.FILES)
    contents = [bad_images.FILES[name][0] for name in names]
    outputs = signatures["serving_default"](image_bytes=tf.constant(contents))
    marked = {name for name, error in zip(names, outputs["error"].numpy(), strict=True) if error}
    assert marked == bad_images.BAD
    good = [name for name in names if name not in marked]
    expected = reference(classifier, [bad_images.FILES[name][0] for name in good])
    predicted = outputs["probabilities"].numpy()[[name not in marked for name in names]]
    np.testing.assert_allclose(predicted, -np.sort(-expected)[:, :2], atol=1e-6)
    bad = np.array([name in marked for name in names])
    assert not outputs["probabilities"].numpy()[bad].any()
    assert set(outputs["classes"].numpy()[bad].ravel()) == {b""}


@pytest.mark.parametrize("contents", [[], [b"no image"], [b""]])
def test_batches_without_a_valid_image(signatures, contents):
    outputs = signatures["serving_default"](image_bytes=tf.constant(contents, tf.string))
    assert outputs["classes"].shape == (len(contents), 2)
    assert all(outputs["error"].numpy())


def test_decoded_images(classifier, signatures):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    outputs = signatures["decoded"](images=tf.constant(pixels))
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    expected = reference(classifier, encoded)
    np.testing.assert_allclose(outputs["probabilities"], -np.sort(-expected)[:, :2], atol=1e-6)
    empty = signatures["decoded"](images=tf.zeros((0, 50, 70, 3), tf.uint8))
    assert empty["classes"].shape == (0, 2)


@pytest.mark.thorough
def test_explanations_match_the_explainer(classifier, signatures):
    contents = [bad_images.JPEG, b"no image", bad_images.PNG]
    outputs = signatures["explained"](image_bytes=tf.constant(contents))
    assert outputs["cam"].shape[:2] == (3, 2) and outputs["timesteps"].shape == (3, 2, 23)
    assert not outputs["cam"].numpy()[1].any() and outputs["error"].numpy()[1]
    explainer = attribution.Explainer(classifier.network)
    for index in (0, 2):
        views = classifier.views(tf.constant(contents[index]))
        batch = {name: view[tf.newaxis] for name, view in views.items()}
        for rank, name in enumerate(outputs["classes"].numpy()[index]):
            label = np.array([[small_export.NAMES.index(name.decode())]])
            ((expected,),) = explainer.explain(batch, label)
            np.testing.assert_allclose(outputs["cam"][index, rank], expected.cam, atol=1e-5)
            np.testing.assert_allclose(
                outputs["timesteps"][index, rank], expected.timesteps, atol=1e-5
            )


@pytest.mark.thorough
def test_only_the_first_classes_are_explained(classifier, monkeypatch):
    monkeypatch.setattr(saved_model, "EXPLAINED", 2)
    predictor = saved_model._Predictor(classifier, 100, small_export.MAX_PIXELS)
    outputs = predictor.explain_files(tf.constant([bad_images.JPEG]))
    assert outputs["classes"].shape == outputs["probabilities"].shape == (1, 3)
    assert outputs["cam"].shape[:2] == (1, 2) and outputs["timesteps"].shape == (1, 2, 23)


def test_about_returns_class_names_and_metadata(signatures):
    outputs = signatures["about"]()
    assert [name.decode() for name in outputs["class_names"].numpy()] == list(small_export.NAMES)
    assert json.loads(outputs["metadata"].numpy())["classes"] == 3


def numbers_written(folder):
    written = tf.train.list_variables(str(folder / "variables" / "variables"))
    return sum(np.prod(shape) for name, shape in written if name.endswith("VARIABLE_VALUE"))


def test_each_weight_is_written_once(classifier, exported):
    weights = classifier.network.model.get_weights()
    assert numbers_written(exported) == sum(weight.size for weight in weights)


@pytest.mark.parametrize("fusion", ["cnn", pytest.param("rnn", marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_a_branch_that_is_left_out_is_not_written(tmp_path, monkeypatch, fusion):
    """Of the signatures, the one with the maps is written: each takes seconds to trace."""
    save = saved_model.save

    def save_one(folder, weights, signatures):
        save(folder, weights, {"explained": signatures["explained"]})

    monkeypatch.setattr(saved_model, "save", save_one)
    network = small_network.small_build(3, variant=network_lib.Variant(fusion))
    limits = {"top": 2, "max_pixels": small_export.MAX_PIXELS, "metadata": {}}
    saved_model.write(
        small_export.classifier(small_export.NAMES, network), tmp_path / "export", **limits
    )
    assert numbers_written(tmp_path / "export") == network.model.count_params()
    part = getattr(network, fusion)
    assert network.model.count_params() == part.count_params() + network.fusion.count_params()
    outputs = tf.saved_model.load(str(tmp_path / "export")).signatures["explained"](
        image_bytes=tf.constant([bad_images.JPEG])
    )
    assert ("cam" in outputs, "timesteps" in outputs) == (fusion == "cnn", fusion == "rnn")
    assert np.max(outputs.get("cam", outputs.get("timesteps"))) == 1
