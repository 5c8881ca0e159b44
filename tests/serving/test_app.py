"""The web application: TensorFlow Serving's format, refused requests, the page."""

import asyncio
import base64
import json
import mimetypes
import re
import threading

import pytest
from starlette import testclient

from cnnrnn.datasets import image_check
from cnnrnn.serving import app, batcher

URL = "/v1/models/cnnrnn"
HOSTS = ("127.0.0.1", "localhost", "[::1]")
HOST = "127.0.0.1:8501"


def classify(images):
    return [{"classes": [image.decode()], "error": ""} for image in images]


def explain(images):
    return [{"error": "bad"} if image == b"bad" else {"classes": []} for image in images]


def application(**settings):
    predictions = settings.pop("predictions", batcher.Batcher(classify, 8, 100))
    explanations = settings.pop("explanations", batcher.Batcher(explain, 1, 2))
    settings = {"max_body_bytes": 100_000, "allowed_hosts": HOSTS, **settings}
    return app.application("cnnrnn", predictions, explanations, **settings)


@pytest.fixture
def client():
    with testclient.TestClient(application(), base_url=f"http://{HOST}") as client:
        yield client


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def test_predictions_are_in_the_order_of_the_instances(client):
    body = {
        "signature_name": "serving_default",
        "instances": [b64(b"first"), {"image_bytes": b64(b"second")}],
    }
    response = client.post(f"{URL}:predict", json=body)
    assert response.status_code == 200
    assert [p["classes"] for p in response.json()["predictions"]] == [["first"], ["second"]]
    assert client.post(f"{URL}:predict", json={"instances": []}).json() == {"predictions": []}


def test_explanations(client):
    assert client.post("/explain", content=b"good").json() == {"classes": []}
    response = client.post("/explain", content=b"bad")
    assert response.status_code == 400 and response.json() == {"error": "bad"}


@pytest.mark.parametrize(
    "body, status, message",
    [
        (b"", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 50_000, 400, "not JSON"),
        (b"[]", 400, "expected"),
        (b'{"instances": 3}', 400, "expected"),
        (b'{"instances": ["x"]}', 400, "an instance is"),
        (b'{"instances": [{"b64": 5}]}', 400, "an instance is"),
        (b'{"instances": [{"b64": "%%%"}]}', 400, "not valid base64"),
        (json.dumps({"instances": [{"b64": ""}] * 65}).encode(), 400, "at most 64"),
        (b'{"signature_name": "other", "instances": []}', 400, "only signature"),
        (b"x" * 100_001, 413, "larger than 0.1 MB"),
    ],
)
def test_invalid_requests_are_refused(client, body, status, message):
    response = client.post(f"{URL}:predict", content=body)
    assert response.status_code == status and message in response.json()["error"]


def test_unknown_paths_and_methods(client):
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/../../etc/passwd").status_code == 404
    assert client.get(f"{URL}:predict").status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example"])
def test_requests_for_another_host_are_refused(client, host):
    """A page of evil.example whose name was changed to the address 127.0.0.1: DNS rebinding."""
    assert client.get("/", headers={"Host": host}).status_code == 400
    for path in ("/explain", f"{URL}:predict"):
        response = client.post(
            path, content=b"x", headers={"Host": host, "Origin": f"http://{host}"}
        )
        assert response.status_code == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9", "null", ""])
def test_requests_from_pages_of_other_sites_are_refused(client, origin):
    for path in ("/explain", f"{URL}:predict"):
        response = client.post(path, content=b"x", headers={"Origin": origin})
        assert response.status_code == 403 and "cross-origin" in response.json()["error"]


@pytest.mark.parametrize("host", [HOST, "localhost:8501", "LOCALHOST", "[::1]:8501"])
def test_requests_of_the_own_page_and_of_other_programs_are_accepted(client, host):
    for origin in ({}, {"Origin": f"http://{host}"}, {"Origin": f"https://{host}"}):
        response = client.post("/explain", content=b"x", headers={"Host": host, **origin})
        assert response.status_code == 200


def test_any_host_can_be_allowed():
    with testclient.TestClient(application(allowed_hosts=["*"])) as client:
        assert client.get("/health", headers={"Host": "classifier.example"}).text == "ok\n"
        origin = {"Host": "classifier.example", "Origin": "http://evil.example"}
        assert client.post("/explain", content=b"x", headers=origin).status_code == 403


def test_health_status_and_page(client):
    assert client.get("/health").text == "ok\n"
    assert client.get(URL).json()["model_version_status"][0]["state"] == "AVAILABLE"
    page = client.get("/")
    assert "Drop an image" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_the_page_offers_the_formats_that_can_be_decoded(client):
    (accepted,) = re.findall('accept="(.*?)"', client.get("/").text)
    decodable = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp"}
    assert decodable <= image_check.SUFFIXES
    mimetypes.add_type("image/webp", ".webp")  # since Python 3.13 it is known
    assert set(accepted.split(",")) == {mimetypes.types_map[suffix] for suffix in decodable}


def test_a_full_queue_is_a_503_with_retry_after():
    full = batcher.Batcher(lambda images: [], 8, 0)
    both = application(predictions=full, explanations=full)
    with testclient.TestClient(both, base_url=f"http://{HOST}") as client:
        for response in (
            client.post(f"{URL}:predict", json={"instances": [b64(b"x")]}),
            client.post("/explain", content=b"x"),
        ):
            assert response.status_code == 503 and response.headers["retry-after"] == "1"
            assert "queue is full" in response.json()["error"]


def scope_of(path):
    """The ASGI scope of a request."""
    headers = [(b"host", HOST.encode())]
    return {"type": "http", "method": "POST", "path": path, "headers": headers}


def test_a_body_that_does_not_arrive_times_out(monkeypatch):
    monkeypatch.setattr(app, "_BODY_TIMEOUT_S", 0.1)
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    asyncio.run(application()(scope_of("/explain"), receive, send))
    assert sent[0]["status"] == 408 and b"within 0.1 s" in sent[1]["body"]
    assert (b"connection", b"close") in sent[0]["headers"]  # the body may still be arriving


class Client:
    """A request, and the status of its response; the client can close the connection."""

    def __init__(self, app, path, body):
        self._messages = [{"type": "http.request", "body": body}]
        self._closed, self.status = asyncio.Event(), None
        self._task = asyncio.create_task(app(scope_of(path), self._receive, self._send))

    async def _receive(self):
        if self._messages:
            return self._messages.pop()
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.status = message.get("status", self.status)

    async def response(self):
        await asyncio.wait_for(self._task, 10)
        return self.status

    async def close(self):
        self._closed.set()
        await asyncio.wait_for(asyncio.wait([self._task]), 10)


@pytest.mark.parametrize("path", ["/explain", f"{URL}:predict"])
def test_a_client_that_leaves_gives_up_its_place_in_the_queue(path):
    computed, gate = [], threading.Event()

    def compute(images):
        computed.extend(images)
        gate.wait(10)
        return [{"classes": []} for _ in images]

    def body(image):
        is_file = path == "/explain"
        return image if is_file else json.dumps({"instances": [b64(image)]}).encode()

    async def run():
        queues = {name: batcher.Batcher(compute, 1, 1) for name in ("predictions", "explanations")}
        served = application(**queues)
        first = Client(served, path, body(b"first"))
        while not computed:
            await asyncio.sleep(0.01)
        leaving = Client(served, path, body(b"leaving"))
        await asyncio.sleep(0.05)
        assert await Client(served, path, body(b"refused")).response() == 503
        await leaving.close()
        last = Client(served, path, body(b"last"))
        await asyncio.sleep(0.05)
        gate.set()
        return await first.response(), await last.response()

    assert asyncio.run(run()) == (200, 200)
    assert computed == [b"first", b"last"]
