"""The lines at a phase's start: speed, memory, whether phase 2 will fit."""

import pytest
import tensorflow as tf

from cnnrnn import config, phases
from cnnrnn.commands import train
from cnnrnn.system import memory
from cnnrnn.training import cost, startup_report
from tests import small_network


@pytest.fixture
def clock(monkeypatch):
    """Time passes only when the test says so."""
    now = [0.0]
    monkeypatch.setattr(startup_report.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def report(clock, capsys):
    """Runs steps of given durations, with 1000 s between epochs, and returns what is printed."""

    def run(seconds, *, epochs, steps_per_epoch, steps_done=0):
        speed = startup_report.SpeedReport(
            phases.PHASE1,
            phases.Schedule(epochs, 10, 1e-3, steps_per_epoch),
            steps_done=steps_done,
            validation_images=30,
        )
        for number, duration in enumerate(seconds, start=steps_done + 1):
            clock[0] += duration
            speed.step_launched()
            if number % steps_per_epoch == 0:
                clock[0] += 1000
        return capsys.readouterr().out.splitlines()

    return run


def test_the_speed_is_that_of_the_steps_after_compilation(report):
    lines = report([60, 1, 2, 3, 50, 50], epochs=2, steps_per_epoch=14)
    assert len(lines) == 1
    assert lines[0].startswith("phase1: 5.0 images/s, peak memory ")  # 30 images in 6 s
    assert " GB of " in lines[0]
    # 24 steps of 10, and 2 times 30 images of validation that cost a third each: 260 / 5 s.
    assert lines[0].endswith("about 52 s left")


def test_the_pause_between_epochs_is_not_timed(report):
    lines = report([60, 2, 9, 2, 2, 2], epochs=3, steps_per_epoch=5, steps_done=3)
    assert [line.split(",")[0] for line in lines] == ["phase1: 5.0 images/s"]


def test_epochs_too_short_to_time_report_nothing(report):
    assert report([1] * 6, epochs=6, steps_per_epoch=1) == []
    assert report([1] * 9, epochs=3, steps_per_epoch=3) == []


def test_on_a_gpu_the_memory_is_that_of_the_gpu(report, monkeypatch):
    devices = [tf.config.LogicalDevice(f"/device:GPU:{i}", "GPU") for i in range(2)]
    peaks = {"/device:GPU:0": 3_000_000_000, "/device:GPU:1": 5_100_000_000}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices)
    monkeypatch.setattr(
        tf.config.experimental, "get_memory_info", lambda name: {"peak": peaks[name]}
    )
    (line,) = report([60, 1, 2, 3], epochs=2, steps_per_epoch=14)
    assert "peak GPU memory 5.1 GB," in line


def test_a_run_reports_its_speed_and_warns_if_phase2_does_not_fit(
    small_config, monkeypatch, capsys
):
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 10**8)
    settings = small_config.replace(epochs=(1, 1), batch_size=(4, 64))
    train.train((phases.PHASE1,), settings, build=small_network.small_build)
    output = capsys.readouterr().out
    assert ", float32, on the CPU, LSTM kernel: ours (one product for all timesteps)\n" in output
    assert "phase1: " in output and "images/s, peak memory" in output
    warning = next(line for line in output.splitlines() if line.startswith("warning"))
    assert "phase 2 at --batch_size=64 will take" in warning
    assert "1.1 GB are available. It will not fit: close other programs first." in warning


def test_the_warning_names_the_largest_batch_that_fits(one_replica, monkeypatch, capsys):
    network = small_network.small_build(3)
    monkeypatch.setattr(memory, "available", lambda: 8 * 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 0)
    parameters = network.model.count_params()
    largest = cost.largest_phase2_batch(8 * 10**9, parameters, half=False)
    for batch in (largest + 1, largest):
        settings = config.Config.of(batch_size=(8, batch))
        startup_report.report_phase2_memory(settings, network, one_replica)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warning: ")
    assert lines[0].endswith(f"It will not fit: give --batch_size=8,{largest} at most.")
    assert lines[1].startswith("memory: ") and "will not fit" not in lines[1]
