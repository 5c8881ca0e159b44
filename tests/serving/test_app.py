"""The web server: the export's answers in TensorFlow Serving's format; hostile requests refused."""

import asyncio
import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from starlette import testclient

from cnnrnn import metrics
from cnnrnn.commands import serve
from cnnrnn.export import saved_model
from cnnrnn.runs import best_weights
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.serving import app, batcher
from tests import bad_images, small_network

NAMES = ("cat", "dog", "bird")
URL = "/v1/models/cnnrnn"


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    best = best_weights.Best(None, "", NAMES, "phase1", 1, metrics.Means(0, 0, 0, 1))
    classifier = classifier_lib.Classifier(small_network.small_build(3), NAMES, "bilinear", best)
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    saved_model.write(classifier, folder, top=2, max_pixels=1_000_000, notes={"made": "here"})
    return tf.saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module")
def client(signatures):
    application = app.application(
        "cnnrnn",
        batcher.Batcher(lambda images: serve.classify(signatures, images), 8, 100),
        batcher.Batcher(lambda images: serve.explain(signatures, "bilinear", images), 1, 2),
        100_000,
    )
    with testclient.TestClient(application) as client:
        yield client


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def test_images_are_answered_as_by_the_export(client, signatures):
    contents = [bad_images.JPEG, b"no image", bad_images.PNG]
    body = {"instances": [b64(content) for content in contents]}
    answer = client.post(f"{URL}:predict", json=body)
    assert answer.status_code == 200
    right = signatures["serving_default"](image_bytes=tf.constant(contents))
    predictions = answer.json()["predictions"]
    assert [bool(p["error"]) for p in predictions] == [False, True, False]
    for prediction, classes, probabilities in zip(
        predictions, right["classes"].numpy(), right["probabilities"].numpy(), strict=True
    ):
        assert prediction["classes"] == [name.decode() for name in classes]
        np.testing.assert_allclose(prediction["probabilities"], probabilities, atol=1e-6)


def test_the_other_form_of_an_instance_and_none_at_all(client):
    body = {
        "signature_name": "serving_default",
        "instances": [{"image_bytes": b64(bad_images.PNG)}],
    }
    assert len(client.post(f"{URL}:predict", json=body).json()["predictions"]) == 1
    assert client.post(f"{URL}:predict", json={"instances": []}).json() == {"predictions": []}


@pytest.mark.parametrize(
    "body, status, said",
    [
        (b"", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 50_000, 400, "no JSON"),
        (b"[]", 400, "expected"),
        (b'{"instances": 3}', 400, "expected"),
        (b'{"instances": ["x"]}', 400, "an instance is"),
        (b'{"instances": [{"b64": 5}]}', 400, "an instance is"),
        (b'{"instances": [{"b64": "%%%"}]}', 400, "no base64"),
        (json.dumps({"instances": [{"b64": ""}] * 65}).encode(), 400, "at most 64"),
        (b'{"signature_name": "other", "instances": []}', 400, "no signature"),
        (b"x" * 100_001, 413, "larger than 0.1 MB"),
    ],
)
def test_hostile_requests_are_refused(client, body, status, said):
    answer = client.post(f"{URL}:predict", content=body)
    assert answer.status_code == status and said in answer.json()["error"]


def test_what_is_not_there_is_not_found(client):
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/../../etc/passwd").status_code == 404
    assert client.get(f"{URL}:predict").status_code == 405


def test_health_status_and_page(client):
    assert client.get("/health").text == "ok\n"
    assert client.get(URL).json()["model_version_status"][0]["state"] == "AVAILABLE"
    page = client.get("/")
    assert (
        "Drop an image" in page.text
        and "default-src 'none'" in page.headers["content-security-policy"]
    )


def test_an_explanation(client):
    answer = client.post("/explain", content=bad_images.JPEG).json()
    assert [said["class"] for said in answer["classes"]][0] in NAMES
    png = base64.b64decode(answer["figure"].removeprefix("data:image/png;base64,"))
    assert tf.io.decode_png(png).shape[1] > 500
    bad = client.post("/explain", content=bad_images.FILES["bomb.png"][0])
    assert bad.status_code == 400 and "too many pixels" in bad.json()["error"]


def test_too_many_at_once_are_told_to_come_again():
    full = batcher.Batcher(lambda images: [], 8, 0)
    application = app.application("cnnrnn", full, full, 100_000)
    with testclient.TestClient(application) as client:
        for answer in (
            client.post(f"{URL}:predict", json={"instances": [b64(b"x")]}),
            client.post("/explain", content=b"x"),
        ):
            assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(app, "_BODY_SECONDS", 0.1)
    none = batcher.Batcher(lambda images: [], 8, 0)
    application = app.application("cnnrnn", none, none, 100_000)
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/explain", "headers": []}
    asyncio.run(application(scope, receive, send))
    assert sent[0]["status"] == 408 and b"within 0.1 s" in sent[1]["body"]
