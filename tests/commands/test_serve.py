"""The server as a process: over HTTP, through its page, and how it stops."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
import uvicorn
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from cnnrnn import config as config_lib
from cnnrnn import errors, serving
from cnnrnn.commands import serve
from cnnrnn.evaluation import charts
from cnnrnn.export import loader
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights
from cnnrnn.system import checksummed
from tests import bad_images, helpers, pages
from tests.export import small_export

NAMES = small_export.NAMES


@pytest.fixture(scope="module")
def signatures(shared_export):
    return loader.load(shared_export).signatures


@pytest.fixture
def loaded(signatures, monkeypatch):
    """Exports with other metadata load the signatures of the shared one, which takes seconds."""
    export = types.SimpleNamespace(signatures=signatures)
    monkeypatch.setattr(tf.saved_model, "load", lambda _: export)


@pytest.fixture(scope="session")
def stopping():
    """Collects servers that were told to stop, and checks at the end that they did.

    A client that is still sending delays a server by ten seconds, in which other tests run.
    """
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """What the server of `address` writes to standard error."""
    return tmp_path_factory.mktemp("server") / "messages"


@pytest.fixture(scope="module")
def address(shared_export, stopping, messages):
    """The URL of a server, which in the end must stop although a client is still sending."""
    program = [sys.executable, "-m", "cnnrnn.main", "serve", f"--model={shared_export}", "--port=0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "KERAS_BACKEND": "jax"}
    del environment["TF_CPP_MIN_LOG_LEVEL"]  # of the tests
    settings = {
        "cwd": helpers.REPOSITORY,
        "stdout": subprocess.PIPE,
        "stderr": stopping.enter_context(messages.open("w")),
        "text": True,
        "env": environment,
    }
    server = stopping.enter_context(subprocess.Popen(program, **settings))
    lines = (line for line in server.stdout if line.startswith("  page"))
    address = next(lines, "").partition("page")[2].strip()
    assert address, messages.read_text()
    yield address
    url = urllib.parse.urlsplit(address)
    stalled = stopping.enter_context(socket.create_connection((url.hostname, url.port)))
    head = f"POST /explain HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 9\r\n\r\n"
    stalled.sendall(f"{head}half".encode())
    time.sleep(0.5)
    server.terminate()

    @stopping.callback
    def _():
        assert server.wait(60) == 128 + signal.SIGTERM


def status(request):
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_listens_on_this_machine_only(address):
    assert address.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(f"{address}health").read() == b"ok\n"


def test_it_starts_whatever_keras_backend_is_set_and_without_lines_of_tensorflow(address, messages):
    assert urllib.request.urlopen(f"{address}health").status == 200
    assert messages.read_text() == ""


def test_requests_of_other_sites_are_refused(address):
    requests = [
        urllib.request.Request(f"{address}explain", bad_images.JPEG, headers)
        for headers in ({}, {"Origin": "http://evil.example"}, {"Host": "evil.example"})
    ]
    assert [status(request) for request in requests] == [200, 403, 400]


@pytest.mark.parametrize(
    "host, address, allowed",
    [
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1", "localhost"]),
        ("box.lan", "10.0.0.7", ["10.0.0.7", "127.0.0.1", "box.lan", "localhost"]),
        ("0.0.0.0", "0.0.0.0", ["*"]),
    ],
)
def test_host_names_that_are_allowed(host, address, allowed, capsys):
    assert serve._allowed_hosts(host, address) == allowed
    warning = "warning: --host=0.0.0.0 accepts requests with any Host header"
    assert (warning in capsys.readouterr().out) == (allowed == ["*"])


def test_predictions_match_the_export(signatures):
    contents = [bad_images.JPEG, b"no image", bad_images.PNG]
    outputs = signatures["serving_default"](image_bytes=tf.constant(contents))
    predictions = serve._predict(signatures, 2, contents)
    assert [bool(prediction["error"]) for prediction in predictions] == [False, True, False]
    for prediction, classes, probabilities in zip(
        predictions, outputs["classes"].numpy(), outputs["probabilities"].numpy(), strict=True
    ):
        assert prediction["classes"] == [name.decode() for name in classes]
        np.testing.assert_allclose(prediction["probabilities"], probabilities, atol=1e-6)


def test_predictions_over_http(address, signatures):
    contents = [bad_images.JPEG, b"no image"]
    instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
    body = json.dumps({"instances": instances}).encode()
    request = urllib.request.Request(f"{address}v1/models/cnnrnn:predict", body)
    with urllib.request.urlopen(request) as response:
        good, bad = json.load(response)["predictions"]
    expected, _ = serve._predict(signatures, 2, contents)
    assert good["classes"] == expected["classes"] and not good["error"]
    np.testing.assert_allclose(good["probabilities"], expected["probabilities"], atol=1e-6)
    assert "not an image" in bad["error"]


def test_explanations_have_classes_and_a_figure(signatures):
    contents = [bad_images.JPEG, bad_images.FILES["bomb.png"][0]]
    (good,), (bad,) = (
        serve._explain(signatures, views_lib.Preprocessing(), 2, [content]) for content in contents
    )
    assert {prediction["class"] for prediction in good["classes"]} <= set(NAMES)
    png = base64.b64decode(good["figure"].removeprefix("data:image/png;base64,"))
    assert tf.io.decode_png(png).shape[1] > 500
    assert "too many pixels" in bad["error"]


def test_all_classes_are_named_and_those_with_maps_drawn(signatures, monkeypatch):
    def explained(image_bytes):
        outputs = signatures["explained"](image_bytes=image_bytes)
        return outputs | {name: outputs[name][:, :1] for name in ("cam", "timesteps")}

    drawn, figure = [], charts.explanation_figure
    monkeypatch.setattr(
        charts,
        "explanation_figure",
        lambda image, classes: drawn.append(len(classes)) or figure(image, classes),
    )
    (result,) = serve._explain(
        {"explained": explained}, views_lib.Preprocessing(), 2, [bad_images.JPEG]
    )
    assert len(result["classes"]) == 2 and drawn == [1]


def test_top_limits_the_classes_of_both_addresses(signatures):
    (predicted,) = serve._predict(signatures, 1, [bad_images.JPEG])
    (explained,) = serve._explain(signatures, views_lib.Preprocessing(), 1, [bad_images.JPEG])
    assert predicted["classes"] == [explained["classes"][0]["class"]]
    assert len(predicted["probabilities"]) == len(explained["classes"]) == 1


@pytest.mark.parametrize("lacking", ["cam", "timesteps"])
def test_a_branch_that_the_network_lacks_has_no_map(signatures, monkeypatch, lacking):
    def explained(image_bytes):
        outputs = signatures["explained"](image_bytes=image_bytes)
        return {name: values for name, values in outputs.items() if name != lacking}

    drawn = []
    monkeypatch.setattr(
        charts, "explanation_figure", lambda _, classes: drawn.append(classes) or b""
    )
    serve._explain({"explained": explained}, views_lib.Preprocessing(), 2, [bad_images.JPEG])
    (classes,) = drawn
    assert [(cam is None, saliency is None) for *_, cam, saliency in classes] == [
        (lacking == "cam", lacking == "timesteps")
    ] * 2


@pytest.mark.thorough
def test_the_page_shows_the_classes_of_an_image(address, browser, tmp_path):
    good, other, bad = (tmp_path / name for name in ("good.jpg", "other.png", "bad.jpg"))
    good.write_bytes(bad_images.JPEG)
    other.write_bytes(bad_images.PNG)
    bad.write_bytes(b"no image")
    browser.get(address)
    file, state, figure = (browser.find_element(By.ID, id) for id in ("file", "state", "figure"))
    wait = WebDriverWait(browser, 60)
    file.send_keys(str(good))
    wait.until(lambda _: state.text == "good.jpg" and figure.is_displayed())
    shown = [line.text.split() for line in browser.find_elements(By.CSS_SELECTOR, "#classes li")]
    assert len(shown) == 2 and {name for name, *_ in shown} <= set(NAMES)
    assert int(figure.get_property("naturalWidth")) > 500
    pages.assert_renders(browser, tmp_path / "page.png")
    # Two at once: the page shows the last one.
    file.send_keys(str(good))
    file.send_keys(str(other))
    wait.until(lambda _: state.text == "other.png" and figure.is_displayed())
    assert len(browser.find_elements(By.CSS_SELECTOR, "#classes li")) == 2
    file.send_keys(str(bad))
    wait.until(lambda _: state.get_attribute("class") == "bad")
    assert "not an image" in state.text and not figure.is_displayed()
    bad.write_bytes(bad_images.JPEG)
    file.send_keys(str(bad))  # the same name again
    wait.until(lambda _: state.text == "bad.jpg" and figure.is_displayed())


@pytest.fixture
def never_serving(monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: pytest.fail("it serves"))


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"eval_image_size": 160}, "size=160: the export .* was made for 299"),
        ({"top": 3}, "--top=3: the export .* returns 2 classes per image"),
    ],
)
def test_what_the_export_cannot_do_is_refused(shared_export, loaded, never_serving, flags, message):
    with pytest.raises(errors.UsageError, match=message):
        serve.run((), config_lib.Config.of(model=str(shared_export), port=0, **flags))


def test_another_limit_of_the_image_size_is_refused(shared_export, loaded, monkeypatch, tmp_path):
    folder = shutil.copytree(shared_export, tmp_path / "export")
    manifest = checksummed.read_json(folder / "seal.json")
    notes = manifest["notes"] | {"max_megapixels": "50"}
    checksummed.write_json(folder / "seal.json", manifest | {"notes": notes})
    for name in ("_predict", "_explain"):
        monkeypatch.setattr(serve, name, lambda *_: [])
    for accepted in ({}, {"max_megapixels": 50.0}):
        serve._load(config_lib.Config.of(model=str(folder), **accepted))
    with pytest.raises(errors.UsageError, match="megapixels=10: the export .* made for 50. Run"):
        serve._load(config_lib.Config.of(model=str(folder), max_megapixels=10.0))


def test_an_export_of_earlier_weights_is_served_only_by_its_own_name(
    shared_export, loaded, trained, never_serving, monkeypatch, capsys
):
    folder = shutil.copytree(shared_export, trained.run_dir / "export")
    manifest = checksummed.read_json(folder / "seal.json")
    notes = {"weights_sha256": "old", "phase": "phase1", "epoch": 9}
    checksummed.write_json(folder / "seal.json", manifest | {"notes": manifest["notes"] | notes})
    best = best_weights.latest(trained.run_dir / "best")
    message = f"weights of phase1, epoch 9, .* now of phase1, epoch {best.epoch}: run .* export"
    with pytest.raises(errors.UsageError, match=message):
        serve.run((), trained.replace(port=0))
    for name in ("_predict", "_explain"):
        monkeypatch.setattr(serve, name, lambda *_: [])
    serve._load(trained.replace(model=str(folder)))
    notes["weights_sha256"] = best.sha256
    checksummed.write_json(folder / "seal.json", manifest | {"notes": manifest["notes"] | notes})
    serve._load(trained)
    (trained.run_dir / "best" / "phase1.json").write_text("damaged")
    serve._load(trained)
    assert "has the run's best weights is not known: " in capsys.readouterr().out
    shutil.rmtree(trained.run_dir / "best")  # the export was copied without the run
    serve._load(trained)


@pytest.fixture
def never_loading(monkeypatch):
    monkeypatch.setattr(loader, "load", lambda *_, **__: pytest.fail("it loads"))


def test_a_closed_terminal_ends_it_like_sigterm(monkeypatch):
    def run(server, sockets):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)  # the handler runs
        assert server.should_exit

    monkeypatch.setattr(serve, "_load", lambda _: (None, None))
    monkeypatch.setattr(uvicorn.Server, "run", run)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        serve.run((), config_lib.Config.of(port=0))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_port_in_use_is_reported_before_loading(never_loading):
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(errors.UsageError, match=f"port={port}: [^(]*in use. Use another"):
            serve.run((), config_lib.Config.of(port=port))


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "192.0.2.1", "::1"])
def test_a_host_that_is_not_of_this_machine_is_one_sentence(never_loading, host):
    with pytest.raises(
        errors.UsageError, match=f"--host={host} [^(]*. Give --host a name or"
    ) as caught:
        serve.run((), config_lib.Config.of(host=host, port=0))
    assert "--port;" not in str(caught.value)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_web_server_is_reported_in_one_sentence(in_process, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "cnnrnn.serving.app", raising=False)
    monkeypatch.delattr(serving, "app", raising=False)  # an earlier test has imported it
    code, _, report = in_process("serve")
    assert code == 2 and len(report.splitlines()) == 1
    assert f"serve needs the package {package}" in report
    assert 'pip install "cnnrnn[serve]"' in report and "./run.sh serve" in report


def test_a_folder_without_an_export_is_refused(tmp_path, capsys):
    with pytest.raises(errors.UsageError, match="is not an export: run ./run.sh export"):
        serve.run((), config_lib.Config.of(model=str(tmp_path), port=0))
    assert "An export runs as a program" in capsys.readouterr().out
