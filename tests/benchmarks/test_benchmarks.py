"""Tests of benchmarks/ without full-size measurements."""

import json
import os
import pathlib
import subprocess
import sys
import types
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import arithmetic, contestants, main, peers, pipelines, process, table
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from tests import helpers, small_network

# A worker that trains nothing. The number of parameters that it reports is the value of
# TF_ENABLE_ONEDNN_OPTS, or 7.
SCRIPT = """
import os, sys
sys.path.insert(0, "benchmarks")
import worker
trained = []
def make():
    print("libraries print")
    return trained.append, int(os.environ.get("TF_ENABLE_ONEDNN_OPTS", 7))
worker.serve(make)
sys.exit(trained != [worker.WARM_UP, 2, 3])
"""


def start(script: str = SCRIPT, **keywords) -> process.Contestant:
    return process.Contestant([sys.executable, "-c", script], **keywords)


# --- arithmetic ----------------------------------------------------------------------------------


def products(outputs) -> int:
    """Operations of the matrix products that a graph computes for its outputs."""
    waiting, seen, total = [tensor.op for tensor in outputs], set(), 0
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        waiting += [tensor.op for tensor in op.inputs]
        if op.type == "MatMul":
            rows, columns = op.outputs[0].shape
            inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            total += 2 * rows * inner * columns
    return total


def test_rnn_operations_equal_those_of_the_graph(monkeypatch):
    sizes = {"TIMESTEPS": 3, "STEP_FEATURES": 5, "UNITS": 4, "CLASSES": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(arithmetic, name, value)
    network = keras.Sequential(
        [lstm.LSTM(4, return_sequences=True), lstm.LSTM(4), keras.layers.Dense(2)]
    )
    network.build((1, 3, 5))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(tf.ones((1, 3, 5))) ** 2)
        return tape.gradient(loss, network.trainable_variables)

    assert products(gradients.get_concrete_function().outputs) == arithmetic.rnn()


def test_operations_of_convolutions(monkeypatch):
    """Of a small CNN in place of Xception: per pixel of the output, two for each weight."""
    layers = [
        keras.Input((9, 9, 3)),
        keras.layers.Conv2D(4, 3, strides=2, use_bias=False),  # (4, 4, 4)
        keras.layers.BatchNormalization(),
        keras.layers.SeparableConv2D(5, 3, padding="same", use_bias=False),  # (4, 4, 5)
    ]
    monkeypatch.setattr(keras.applications, "Xception", lambda **_: keras.Sequential(layers))
    assert arithmetic.cnn_forward() == 2 * 16 * (9 * 3 * 4) + 2 * 16 * (9 * 4 + 4 * 5)


@pytest.mark.slow  # test_operations_of_convolutions
def test_xception_operations_are_as_published():
    # 8.4 billion multiply-adds, a widely published figure.
    assert arithmetic.cnn_forward() == pytest.approx(2 * 8.4e9, rel=0.02)


def test_cached_features_leave_out_the_cnn(monkeypatch):
    monkeypatch.setattr(arithmetic, "cnn_forward", lambda: 10e9)
    cached = arithmetic.per_image(1, cached=True)
    assert arithmetic.per_image(1, cached=False) == cached + 10e9
    assert arithmetic.per_image(2, cached=False) == cached + 30e9


# --- contestants ---------------------------------------------------------------------------------


def test_main_imports_neither_cnnrnn_nor_tensorflow():
    code = (
        "import sys, benchmarks.main; "
        "sys.exit(bool({'cnnrnn', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=helpers.REPOSITORY, check=True)


def test_a_contestant_trains_the_given_number_of_steps():
    contestant = start(parameters=7)
    assert 0 <= contestant.seconds(2) < 60
    contestant.seconds(3)
    assert 0.005 < contestant.gigabytes < 1
    contestant.close()
    assert contestant._process.returncode == 0


@pytest.mark.thorough
def test_peak_memory_is_not_that_of_the_parent_process():
    ballast = np.ones(150_000_000)  # 1.2 GB
    contestant = start(parameters=7)
    contestant.seconds(1)
    assert len(ballast) and 0.005 < contestant.gigabytes < 1
    contestant.close()


def test_contestants_do_not_inherit_the_onednn_setting(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    start(parameters=7).close()
    start(parameters=0, onednn="0").close()


def test_a_failure_while_training_is_reported():
    dying = SCRIPT.replace("return trained.append", "return lambda count: 3 / (count - 2)")
    contestant = start(dying, parameters=7)
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        contestant.seconds(2)


def test_a_different_number_of_parameters_is_an_error():
    with pytest.raises(SystemExit, match="has 7 parameters, not 8"):
        start(parameters=8)


def test_a_failure_at_the_start_is_reported():
    with pytest.raises(SystemExit, match="no such kernel\n\nfailed, exit 1: "):
        start("import sys; sys.exit('no such kernel')", parameters=7)


@pytest.fixture
def small_batches(small_network, monkeypatch):
    """The batch of two images that `contestants` trains the small network on."""
    batch = contestants.batch_of(2)
    batch["features"] = batch["features"][:, :6]
    monkeypatch.setattr(contestants, "BATCH", {1: 2, 2: 2})
    monkeypatch.setattr(contestants, "batch_of", lambda size: dict(batch))
    return batch


# The quick case has all parts of a step but the CNN, which tests/training covers.
@pytest.mark.parametrize(
    "phase, cached",
    [
        (1, True),
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_program_trains(phase, cached, small_batches, monkeypatch):
    built = []

    def build(*arguments, **keywords):
        built.append(small_network.small_build(*arguments, **keywords))
        return built[0]

    monkeypatch.setattr(network_lib, "build", build)
    run, parameters = contestants.program(phase, "float32", cached=cached)
    network = built[0]
    assert parameters == network.model.count_params()
    before = [variable.numpy() for variable in network.model.trainable_variables]
    run(2)
    after = [variable.numpy() for variable in network.model.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    assert bool(network.cnn.trainable_variables) == (phase == 2)


@pytest.mark.thorough
def test_keras_fit_trains(monkeypatch):
    def xception(**keywords):
        return keras.Sequential(
            [keras.Input((299, 299, 3)), keras.layers.AveragePooling2D(299), keras.layers.Flatten()]
        )

    monkeypatch.setattr(keras.applications, "Xception", xception)
    monkeypatch.setattr(arithmetic, "UNITS", 3)
    monkeypatch.setattr(contestants, "BATCH", {1: 2})
    run, parameters = contestants.keras_fit(1, "float32")
    assert parameters == 4 * 3 * (3887 + 3 + 1) + 4 * 3 * (3 + 3 + 1) + 100 * (3 + 1)
    run(1)


def test_a_loss_that_is_not_finite_is_an_error(small_batches):
    small_batches["features"][0, 0] = np.nan
    run, _ = contestants.program(1, "float32")
    with pytest.raises(ArithmeticError, match="the loss is nan"):
        run(1)


def test_in_subprocess_is_quiet_returns_and_raises(capfd):
    assert main.in_subprocess(main._operations, 1) == arithmetic.rnn()
    with pytest.raises(FileNotFoundError):
        main.in_subprocess(os.listdir, "no such folder")
    main.in_subprocess(os.write, 2, b"noise")
    assert capfd.readouterr().err == ""


# --- all pairings --------------------------------------------------------------------------------


class Fake:
    """Stands in for a process: steps take the given seconds."""

    alive = 0
    most = 0
    order: list[str] = []

    def __init__(self, name: str, seconds: list[float]):
        self._name, self._seconds, self.gigabytes = name, iter(seconds), 3.0
        Fake.alive += 1
        Fake.most = max(Fake.most, Fake.alive)

    def seconds(self, steps: int) -> float:
        Fake.order.append(self._name)
        return next(self._seconds)

    def close(self) -> None:
        Fake.alive -= 1


@pytest.fixture
def fakes(monkeypatch):
    Fake.alive, Fake.most, Fake.order = 0, 0, []
    drifting = {"peak": [0.5], "program": [1, 2, 9], "program-uncached": [4]}

    def worker(name, phase, precision, **keywords):
        seconds = {"keras": [8, 16, 10]}.get(name) or drifting[name]
        return Fake(name, seconds * 30)

    monkeypatch.setattr(main, "worker", worker)
    monkeypatch.setattr(main, "torch", lambda *arguments: Fake("torch", [6] * 3))
    monkeypatch.setattr(main, "in_subprocess", lambda function, *arguments: 1e9)


def test_baselines_take_turns_and_ratios_are_of_medians(fakes):
    rows = main.steps(main.pairings(None, ["float32"]))
    assert [(row.phase, row.baseline) for row in rows] == [
        (1, "Keras fit, float32"),
        (1, "Keras fit, float32, oneDNN on"),
        (1, "this program without the cache"),
        (2, "Keras fit, float32"),
        (2, "Keras fit, float32, oneDNN on"),
    ]
    assert Fake.order[:6] == ["peak", "keras", "program"] * 2
    assert [row.ratio for row in rows] == [5, 5, 2, 5, 5]
    assert (rows[0].rate, rows[0].baseline_rate) == (16, 3.2)
    peak = 2 * contestants.PEAK_SIZE**3 / 0.5
    assert rows[0].fraction == pytest.approx(16 * 1e9 / peak)
    # The matrix product, the program and one baseline; two baselines would not fit into memory.
    assert (Fake.most, Fake.alive) == (3, 0)


def test_bfloat16_is_paired_with_both_precisions_and_pytorch(fakes):
    pairings = main.pairings(pathlib.Path("python"), ["float32", "bfloat16"])
    assert [pairing.baseline for pairing in pairings if pairing.precision == "bfloat16"][:5] == [
        "Keras fit, float32",
        "Keras fit, bfloat16",
        "Keras fit, float32, oneDNN on",
        "this program without the cache",
        "PyTorch, bfloat16",
    ]
    assert len(main.steps(pairings)) == len(pairings) == 16


def test_the_table_is_written(tmp_path):
    row = table.Row(
        phase=2, batch=16, precision="float32", baseline="Keras fit, float32", baseline_rate=0.5,
        rate=1.25, peak_gflops=150.4, fraction=0.456, baseline_gb=9.81, gb=7.4,
    )  # fmt: skip
    about = {"machine": table.machine("2.13.0"), "command": "./run.sh bench --peers"}
    text = table.write(tmp_path / "out", about, [row], {"this program": 1234.5})
    assert (tmp_path / "out/table.md").read_text() == text
    assert "tensorflow 2." in text and "torch 2.13.0" in text and "`./run.sh bench --peers`" in text
    assert (
        "| 2, batch 16 | float32 | 1.25 | 46% of 150 GFLOP/s | 7.4 GB | Keras fit, float32 | 0.50 "
        "| 9.8 GB | **2.50** |\n"
    ) in text
    assert "| this program | 1,234 |" in text
    values = json.loads((tmp_path / "out/table.json").read_text())
    assert values["steps"][0]["ratio"] == 2.5 and values["pipelines"] == {"this program": 1234.5}


# --- pipelines -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_pipelines_are_measured(monkeypatch, capfd):
    monkeypatch.setattr(pipelines, "PER_CLASS", 8)
    monkeypatch.setattr(pipelines, "IMAGES", 8 * pipelines.BATCH)
    monkeypatch.setattr(pipelines, "ROUNDS", 1)
    rates = pipelines.measure(None)
    assert [name.partition(":")[0] for name in rates] == [
        "this program",
        "this program, features cached",
        "keras image_dataset_from_directory",
        "keras ImageDataGenerator",
    ]
    assert all(rate > 1 for rate in rates.values())


def test_a_tiny_imagenet_zip_is_unpacked_into_class_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "PER_CLASS", 1)  # of four classes; there are two
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for label in ("n01", "n02"):
            for i in range(3):
                file.writestr(f"tiny/train/{label}/images/{label}_{i}.JPEG", f"{label} {i}")
        file.writestr("tiny/val/images/val_0.JPEG", "not these")
    root = pipelines.unpacked(archive, tmp_path / "images")
    files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.JPEG")}
    assert files == {
        f"{label}/{label}_{i}.JPEG": f"{label} {i}" for label in ("n01", "n02") for i in range(2)
    }


def test_any_other_zip_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a.JPEG", "")
    with pytest.raises(SystemExit, match="is it tiny-imagenet's"):
        pipelines.unpacked(tmp_path / "other.zip", tmp_path / "images")


# --- the environment with PyTorch ----------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that would be run; none is."""
    recorded = []
    monkeypatch.setattr(peers, "REQUIREMENTS", tmp_path / "requirements.txt")
    peers.REQUIREMENTS.write_text("torch==1\n")

    def pretend(command, **keywords):
        recorded.append(command)
        (tmp_path / "peers").mkdir(exist_ok=True)
        (tmp_path / "peers/pyvenv.cfg").touch()
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", pretend)
    return recorded


def test_the_environment_is_created_once_and_again_when_the_pins_change(commands, tmp_path):
    folder = tmp_path / "peers"
    python = peers.python(folder)
    assert python.parent.parent == folder
    assert [command[1:3] for command in commands] == [["-m", "venv"], ["-m", "pip"]]
    assert commands[1][0] == str(python) and commands[1][-1] == str(peers.REQUIREMENTS)
    peers.python(folder)
    assert len(commands) == 2
    peers.REQUIREMENTS.write_text("torch==2\n")
    peers.python(folder)
    assert len(commands) == 4


def test_a_failed_installation_is_repeated(commands, tmp_path, monkeypatch):
    failing = types.SimpleNamespace(returncode=1)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda command, **keywords: failing)
        with pytest.raises(SystemExit, match="failed: .* -m venv"):
            peers.python(tmp_path / "peers")
    peers.python(tmp_path / "peers")
    assert len(commands) == 2


def test_a_folder_that_is_not_an_environment_is_left_unchanged(commands, tmp_path):
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers/mine.txt").touch()
    with pytest.raises(SystemExit, match="is not a Python environment"):
        peers.python(tmp_path / "peers")
    assert (tmp_path / "peers/mine.txt").exists()
