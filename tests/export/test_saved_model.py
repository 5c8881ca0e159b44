"""The exported model, in a process that knows nothing of this package."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import metrics
from cnnrnn.export import saved_model
from cnnrnn.models import attribution
from cnnrnn.runs import best_weights
from cnnrnn.runs import classifier as classifier_lib
from tests import bad_images, small_network

NAMES = ("a cat", "ein Hund", "鳥")
ALONE = """
import sys, json, pathlib
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
images = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())]
out = signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
assert "cnnrnn" not in sys.modules
print(json.dumps({name: value.numpy().tolist() for name, value in out.items()},
                 default=lambda b: b.decode()))
"""
# As TensorFlow Serving runs it, in C++: a session, and no operation that needs Python.
SESSION = """
import sys, json
import tensorflow.compat.v1 as tf
with tf.Session(graph=tf.Graph()) as session:
    model = tf.saved_model.load(session, ["serve"], sys.argv[1])
    signature = model.signature_def["serving_default"]
    outputs = {name: tensor.name for name, tensor in signature.outputs.items()}
    images = [open(sys.argv[2], "rb").read(), b"no image"]
    out = session.run(outputs, {signature.inputs["image_bytes"].name: images})
    nodes = [node for function in model.graph_def.library.function for node in function.node_def]
    assert nodes and not [node.op for node in nodes if "Py" in node.op]
assert "cnnrnn" not in sys.modules
print(json.dumps({name: value.tolist() for name, value in out.items()},
                 default=lambda b: b.decode()))
"""


@pytest.fixture(scope="module")
def classifier():
    best = best_weights.Best(None, "", NAMES, "phase1", 1, metrics.Means(0, 0, 0, 1))
    return classifier_lib.Classifier(small_network.small_build(3), NAMES, "bilinear", best)


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    saved_model.write(classifier, folder, top=2, max_pixels=1_000_000, notes={"made": "here"})
    return folder


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def reference(classifier, contents):
    views = [classifier.views(tf.constant(content)) for content in contents]
    batch = {name: tf.stack([view[name] for view in views]) for name in views[0]}
    return classifier.probabilities(batch).numpy()


def said_alone(program, exported, path):
    ended = subprocess.run(
        [sys.executable, "-c", program, str(exported), str(path)],
        cwd=exported.parent,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def test_a_session_says_what_the_program_says(classifier, exported, tmp_path):
    (tmp_path / "image").write_bytes(bad_images.JPEG)
    said = said_alone(SESSION, exported, tmp_path / "image")
    right = reference(classifier, [bad_images.JPEG])
    assert [bool(error) for error in said["error"]] == [False, True]
    np.testing.assert_allclose(said["probabilities"][:1], -np.sort(-right)[:, :2], atol=1e-6)
    assert said["classes"][0][0] == NAMES[right.argmax()] and said["classes"][1] == ["", ""]


def test_a_fresh_process_says_what_the_program_says(classifier, exported, tmp_path):
    good = sorted(set(bad_images.FILES) - bad_images.BAD)
    for number, name in enumerate(good):
        (tmp_path / f"{number:03d}").write_bytes(bad_images.FILES[name][0])
    said = said_alone(ALONE, exported, tmp_path)
    right = reference(classifier, [bad_images.FILES[name][0] for name in good])
    assert said["error"] == [""] * len(good)
    np.testing.assert_allclose(said["probabilities"], -np.sort(-right)[:, :2], atol=1e-6)
    assert [first for first, _ in said["classes"]] == [NAMES[label] for label in right.argmax(1)]


def test_a_bad_image_marks_its_own_row(classifier, signatures):
    names = sorted(bad_images.FILES)
    contents = [bad_images.FILES[name][0] for name in names]
    said = signatures["serving_default"](image_bytes=tf.constant(contents))
    marked = {name for name, error in zip(names, said["error"].numpy(), strict=True) if error}
    assert marked == bad_images.BAD
    good = [name for name in names if name not in marked]
    right = reference(classifier, [bad_images.FILES[name][0] for name in good])
    found = said["probabilities"].numpy()[[name not in marked for name in names]]
    np.testing.assert_allclose(found, -np.sort(-right)[:, :2], atol=1e-6)
    bad = np.array([name in marked for name in names])
    assert not said["probabilities"].numpy()[bad].any()
    assert set(said["classes"].numpy()[bad].ravel()) == {b""}


@pytest.mark.parametrize("contents", [[], [b"no image"], [b""]])
def test_none_or_bad_ones_alone_are_answered(signatures, contents):
    said = signatures["serving_default"](image_bytes=tf.constant(contents, tf.string))
    assert said["classes"].shape == (len(contents), 2)
    assert all(said["error"].numpy())


def test_decoded_images(classifier, signatures):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    said = signatures["decoded"](images=tf.constant(pixels))
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    right = reference(classifier, encoded)
    np.testing.assert_allclose(said["probabilities"], -np.sort(-right)[:, :2], atol=1e-6)
    none = signatures["decoded"](images=tf.zeros((0, 50, 70, 3), tf.uint8))
    assert none["classes"].shape == (0, 2)


def test_explanations_are_those_of_the_program(classifier, signatures):
    contents = [bad_images.JPEG, b"no image", bad_images.PNG]
    said = signatures["explained"](image_bytes=tf.constant(contents))
    assert said["cam"].shape[:2] == (3, 2) and said["timesteps"].shape == (3, 2, 23)
    assert not said["cam"].numpy()[1].any() and said["error"].numpy()[1]
    explainer = attribution.Explainer(classifier.network)
    for row in (0, 2):
        views = classifier.views(tf.constant(contents[row]))
        batch = {name: view[tf.newaxis] for name, view in views.items()}
        for rank, name in enumerate(said["classes"].numpy()[row]):
            label = np.array([[NAMES.index(name.decode())]])
            ((right,),) = explainer.explain(batch, label)
            np.testing.assert_allclose(said["cam"][row, rank], right.cam, atol=1e-5)
            np.testing.assert_allclose(said["timesteps"][row, rank], right.timesteps, atol=1e-5)


def test_it_knows_its_classes_and_what_made_it(signatures):
    said = signatures["about"]()
    assert [name.decode() for name in said["class_names"].numpy()] == list(NAMES)
    assert json.loads(said["notes"].numpy()) == {"made": "here"}


def test_each_weight_is_written_once(classifier, exported):
    written = tf.train.list_variables(str(exported / "variables" / "variables"))
    numbers = sum(np.prod(shape) for name, shape in written if name.endswith("VARIABLE_VALUE"))
    assert numbers == sum(weight.size for weight in classifier.network.model.get_weights())
