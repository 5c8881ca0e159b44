"""The measurements of check-gpu with the small network on two logical CPUs, in this process."""

import math

import pytest
import tensorflow as tf

from cnnrnn import config, phases, shapes
from cnnrnn.gpu_check import (
    determinism,
    input_images,
    installation,
    lstm_kernels,
    measurement,
    replicas,
    session,
    training_steps,
)
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.system import devices
from cnnrnn.training import feature_cache
from tests import (
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


@pytest.fixture(autouse=True)
def tf32_as_before():
    """Measurements turn it off, each in a process of its own."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.fixture
def settings(small_config, small_network, two_replicas, monkeypatch):
    monkeypatch.setattr(devices, "strategy", lambda logical_cpus: two_replicas)
    monkeypatch.setattr(session, "_TIMED_SECONDS", 0.0)
    monkeypatch.setattr(feature_cache, "_BATCH_PER_REPLICA", 2)
    return config.Config.of(
        dataset=small_config.data.dataset,
        batch_size=(5, 2),
        logical_cpus=2,
        precision="float32",
    )


@pytest.mark.parametrize("phase", ["phase1", pytest.param("phase2", marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_training_steps(settings, phase):
    found = training_steps.measure(settings, phase)
    figures = found.figures
    assert found.passed and len(figures["losses"]) == 3
    assert figures["batch_size"] == (6 if phase == "phase1" else 2)  # of whole replicas
    assert figures["images_per_second"] > 0 and figures["in_memory"] > 0
    assert 0 <= figures["waiting"] < 1 and figures["peak"] > 10**8
    assert f"loss {figures['losses'][0]:.4f}" in found.text


def test_training_steps_fail_if_a_loss_is_not_finite(settings, monkeypatch):
    monkeypatch.setattr(session, "rate", lambda *_: 1.0)
    monkeypatch.setattr(session.Session, "losses", lambda *_: [1.0, math.nan, 1.0])
    assert not training_steps.measure(settings, "phase1").passed


@pytest.mark.thorough
def test_input_images(settings):
    found = input_images.measure(settings)
    assert found.passed and len(found.figures) == 4 and min(found.figures.values()) > 0


def test_replicas_have_losses_of_both_phases(settings, monkeypatch):
    monkeypatch.setattr(session.Session, "losses", lambda _, count: [1.0] * count)
    figures = replicas.measure(settings.replace(batch_size=(4, 4)), False).figures
    assert figures["devices"] == 2 and set(figures["losses"]) == {"phase1", "phase2"}
    assert all(set(losses) == {1.0} for losses in figures["losses"].values())


@pytest.mark.slow  # thorough: that two replicas equal one, in test_steps
def test_replicas_are_told_from_those_that_do_not_synchronize(settings, one_replica, monkeypatch):
    monkeypatch.setattr(phases, "BY_NAME", {"phase2": phases.PHASE2})

    def losses():
        figures = replicas.measure(settings.replace(batch_size=(4, 4)), False).figures
        return figures["devices"], figures["losses"]["phase2"]

    count, together = losses()
    build = network_lib.build
    monkeypatch.setattr(
        network_lib, "build", lambda *a, **k: build(*a, **k | {"synchronized_batchnorm": False})
    )
    _, separate = losses()
    monkeypatch.setattr(devices, "strategy", lambda logical_cpus: one_replica)
    _, alone = losses()
    assert count == 2
    assert together == pytest.approx(alone, rel=1e-5)
    assert separate[0] != pytest.approx(alone[0], rel=1e-4)


@pytest.mark.slow
def test_the_digest_tells_different_trainings_apart(settings):
    first, second = (determinism.measure(settings).figures for _ in range(2))
    assert first == second and list(first) == ["float32"]
    other = determinism.measure(settings.replace(learning_rate=(1e-3, 1.01e-4))).figures
    assert other != first


@pytest.mark.thorough
def test_lstm_kernels(settings, monkeypatch):
    for name, size in (("LSTM_UNITS", 8), ("TIMESTEPS", 3), ("STEP_FEATURES", 5)):
        monkeypatch.setattr(shapes, name, size)
    found = lstm_kernels.measure(settings)
    assert found.passed and list(found.figures["error"]) == [
        "float32 ours", "bfloat16 ours", "float16 ours",
    ]  # fmt: skip
    assert found.figures["error"]["float32 ours"] == 0 < found.figures["error"]["bfloat16 ours"]
    right = lstm.LSTM.call

    def wrong(layer, sequences, **kwargs):
        outputs = right(layer, sequences, **kwargs)
        return outputs * 1.5 if layer.compute_dtype == "float16" else outputs

    monkeypatch.setattr(lstm.LSTM, "call", wrong)
    assert not lstm_kernels.measure(settings).passed


def test_installation():
    found = installation.measure(config.Config())
    if not devices.gpus():
        assert not found.passed and "sees no GPU" in found.text
    found = installation.measure(config.Config.of(logical_cpus=2))
    assert found.passed and found.figures["devices"] == 2 and "packages" in found.figures


def test_errors_of_tensorflow_can_be_sent_to_the_parent_process(monkeypatch):
    def measure(config, error):
        raise error(None, None, "the message\nmore")

    monkeypatch.setattr(installation, "measure", measure)
    with pytest.raises(MemoryError, match="the message"):
        measurement.measure("installation", config.Config(), tf.errors.ResourceExhaustedError)
    with pytest.raises(measurement.errors.RunError, match="^the message$"):
        measurement.measure("installation", config.Config(), tf.errors.InternalError)
