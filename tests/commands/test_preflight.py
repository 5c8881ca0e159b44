"""The preflight, what a phase tells as it opens, and the memory that they ask for."""

import multiprocessing
import os
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from cnnrnn import config, errors, main, phases
from cnnrnn.commands import preflight, train
from cnnrnn.models import network as network_lib
from cnnrnn.system import memory
from cnnrnn.training import dry_run, feature_cache, startup_report
from tests import helpers, small_network
from tests.commands import preflight_stand_ins

# --- preflight -----------------------------------------------------------------------------------


def test_the_table_says_what_the_whole_run_takes(capsys):
    preflight.run(config.Config(), preflight_stand_ins.ready_made)
    told = capsys.readouterr().out
    for words in (
        "phase 1                     phase 2",
        "4 images",
        "the CPU, float32",
        "a kernel",
        "3.1 GB",
        "23.0 GB",
        "5.0 images/s                -",
        "600 images: 2 min 00 s",
        "3 x 200 images: 1 min 00 s",
        "3 min 15 s                  4 min 10 s",
        "evaluation: 25 s",
        "whole run:  7 min 50 s (estimate",
    ):
        assert words in told


def test_a_killed_trial_is_survived_and_told(capsys):
    with pytest.raises(errors.RunError) as raised:
        preflight.run(config.Config.of(batch_size=(4, 64)), preflight_stand_ins.killed_in_phase2)
    message = str(raised.value)
    assert message.startswith("phase 2 at --batch_size=64 does not fit: the process was killed by")
    assert "Give a smaller --batch_size" in message
    if sys.platform == "linux":
        told = float(message.split("system at ")[1].split(" GB")[0])
        assert 0.3 <= told < 0.5
    assert "3 x 200 images" in capsys.readouterr().out  # what was found of phase 1


@pytest.mark.parametrize(
    "measure, kind, message",
    [
        (
            preflight_stand_ins.out_of_memory,
            errors.RunError,
            "phase 1 at --batch_size=4 does not fit: it ran out of",
        ),
        (preflight_stand_ins.wrong_use, errors.UsageError, "no such data set"),
        (preflight_stand_ins.crashing, errors.RunError, "ended with exit code 7"),
        (
            preflight_stand_ins.swapping,
            errors.RunError,
            "took 9.0 GB, and 8.0 GB were",
        ),
    ],
)
def test_what_goes_wrong_in_a_trial_is_one_sentence(measure, kind, message):
    with pytest.raises(kind, match=message):
        preflight.run(config.Config.of(batch_size=(4, 2)), measure)


def test_a_trial_ends_with_the_preflight():
    code = "from cnnrnn import config, preflight; import preflight_stand_ins as s; "
    code += "preflight.run(config.Config(), s.never_ending)"
    paths = [str(helpers.REPOSITORY), str(helpers.REPOSITORY / "tests")]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        trial_process = int(running.stdout.readline())
        running.kill()  # which leaves it no time to end the trial
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(trial_process, 0)
            time.sleep(0.05)


def test_the_trial_of_a_phase_leaves_nothing(small_config, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    found = preflight._in_own_process("phase2", small_config, preflight_stand_ins.small_trial)
    assert found.parameters == small_network.small_build(3).model.count_params()
    assert (found.batch_size, found.precision, found.features) == (2, "float32", None)
    assert (found.training.images, found.training.times) == (18, 2)
    assert (found.validation.images, found.validation.times) == (9, 2)
    assert found.training.rate > 0 and found.validation.rate > 0
    assert 10**8 < found.peak < 10**10
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not (config.cache_dir() / "features").exists()


@pytest.fixture
def in_this_process(monkeypatch, one_replica):
    monkeypatch.setattr(network_lib, "build", small_network.small_build)
    monkeypatch.setattr(feature_cache, "_BATCH_PER_REPLICA", 4)


@pytest.mark.parametrize(
    "changes, images",
    [
        ({}, 18 + 9),
        ({"epochs": (1, 1)}, None),  # one pass: computing them is as long
        ({"epochs": (2, 1), "samples_per_epoch": (8, 8)}, 9),
        ({"feature_cache": "off"}, None),
    ],
)
def test_phase1_is_tried_as_it_would_run(in_this_process, small_config, changes, images):
    found = dry_run.measure("phase1", small_config.replace(**changes))
    assert (found.features and found.features.images) == images


def test_a_image_that_cannot_be_decoded_is_named(in_this_process, small_config, images):
    path = next((images / "train").rglob("*.png"))
    path.write_bytes(b"no image")
    with pytest.raises(errors.UsageError, match=f"1 of 27 images .*{path}"):
        dry_run.measure("phase2", small_config)


# --- the opening of a phase ----------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [0.0]
    monkeypatch.setattr(startup_report.time, "monotonic", lambda: now[0])
    return now


def step_through(clock, seconds, *, epochs, steps_per_epoch, steps_done=0):
    """The lines told while steps of the given durations run; after each epoch 1000 s pass."""
    schedule = phases.Schedule(epochs, 10, 1e-3, steps_per_epoch)
    lines = []

    def step(batch):
        clock[0] += batch
        return tf.constant([1.0]), tf.constant(0.0)

    telling = startup_report.TellingStep(
        step,
        phases.PHASE1,
        schedule,
        steps_done=steps_done,
        validation_images=30,
        log=lines.append,
    )
    for number, duration in enumerate(seconds, start=steps_done + 1):
        telling(duration)
        if number % steps_per_epoch == 0:
            clock[0] += 1000
    return lines


def test_the_pace_is_that_of_the_steady_steps(clock):
    lines = step_through(clock, [60, 1, 2, 3, 50, 50], epochs=2, steps_per_epoch=14)
    assert len(lines) == 1
    assert lines[0].startswith("phase1: 5.0 images/s, peak memory ")  # 30 images in 6 s
    assert " GB of " in lines[0] and "LSTM kernel: " in lines[0]
    # 24 steps of 10, and 2 times 30 images of validation that cost a third each: 260 / 5 s.
    assert lines[0].endswith("about 52 s to go")


def test_what_lies_between_epochs_is_not_its_pace(clock):
    lines = step_through(clock, [60, 2, 9, 2, 2, 2], epochs=3, steps_per_epoch=5, steps_done=3)
    assert [line.split(",")[0] for line in lines] == ["phase1: 5.0 images/s"]


def test_short_epochs_and_short_runs_tell_nothing(clock):
    assert step_through(clock, [1] * 6, epochs=6, steps_per_epoch=1) == []
    assert step_through(clock, [1] * 9, epochs=3, steps_per_epoch=3) == []


def test_a_run_tells_its_pace_and_whether_phase2_fits(
    small_config, small_network, one_replica, monkeypatch, capsys
):
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 10**8)
    train.phase1((), small_config.replace(epochs=(1, 1), batch_size=(4, 64)))
    told = capsys.readouterr().out
    assert "phase1: " in told and "images/s, peak memory" in told
    warning = next(line for line in told.splitlines() if line.startswith("warning"))
    assert "phase 2 at --batch_size=64 will take" in warning
    assert "1.1 GB are available. It will not fit: close other programs first." in warning


def test_the_warning_names_the_largest_batch_that_fits(one_replica, monkeypatch):
    network = small_network.small_build(3)
    monkeypatch.setattr(memory, "available", lambda: 8 * 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 0)
    size = {"parameters": network.model.count_params(), "half": False}
    largest = memory.largest_phase2_batch(8 * 10**9, **size)
    assert memory.phase2(largest, **size) <= 8 * 10**9 < memory.phase2(largest + 1, **size)
    lines = []
    for batch in (largest + 1, largest):
        settings = config.Config.of(batch_size=(8, batch))
        startup_report.tell_of_phase2(settings, network, one_replica, log=lines.append)
    assert lines[0].startswith("warning: ")
    assert lines[0].endswith(f"It will not fit: give --batch_size=8,{largest} at most.")
    assert lines[1].startswith("memory: ") and "will not fit" not in lines[1]


def test_a_half_precision_halves_the_images_and_replicas_multiply_the_parameters():
    def need(batch, **changes):
        return memory.phase2(batch, 10**8, **{"half": False, **changes})

    assert need(16, half=True) - need(0, half=True) == pytest.approx((need(16) - need(0)) / 2)
    assert need(0, half=True) - need(0) == pytest.approx(0.2e9)  # the weights in 16 bits
    assert need(16, replicas=2) - need(16) == pytest.approx(1.6e9)
    largest = memory.largest_phase2_batch(8e9, 10**8, half=False, replicas=2)
    assert largest % 2 == 0 and need(largest, replicas=2) <= 8e9 < need(largest + 2, replicas=2)


@pytest.mark.slow
def test_phase2_takes_what_is_estimated(small_config):
    """The real network, tried as ./run.sh preflight does it."""
    settings = small_config.replace(batch_size=(4, 4), precision="float32")
    found = preflight._in_own_process("phase2", settings, main._trial)
    expected = memory.phase2(4, found.parameters, half=False)
    assert found.peak == pytest.approx(expected, rel=0.12)


# --- memory --------------------------------------------------------------------------------------


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_memory_is_read_from_proc(tmp_path):
    write(tmp_path, "proc/self/status", "Name:\tx\nVmHWM:\t 2000 kB\nVmRSS:\t 1000 kB\n")
    write(tmp_path, "proc/7/status", "VmHWM:\t 3000 kB\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 8000 kB\n")
    assert memory.peak(root=tmp_path) == 2000 * 1024
    assert memory.peak(7, root=tmp_path) == 3000 * 1024
    assert memory.peak(8, root=tmp_path) is None
    assert memory.resident(tmp_path) == 1000 * 1024
    assert memory.available(tmp_path) == 8000 * 1024
    assert memory.total(tmp_path) == 9000 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_where_it_is_lower(tmp_path, version):
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    if version == 1:
        write(tmp_path, "proc/self/cgroup", "5:cpu:/a\n4:memory:/a/b\n")
        mount, names = "sys/fs/cgroup/memory", ("limit_in_bytes", "usage_in_bytes")
        none, cache = str(2**63 - 4096), "total_inactive_file"
    else:
        write(tmp_path, "proc/self/cgroup", "0::/a/b\n")
        mount, names = "sys/fs/cgroup", ("max", "current")
        none, cache = "max", "inactive_file"
    for group, limit in (("a/b", none), ("a", "3000000")):  # the limit is the parent's
        write(tmp_path, f"{mount}/{group}/memory.{names[0]}", f"{limit}\n")
        write(tmp_path, f"{mount}/{group}/memory.{names[1]}", "1200000\n")
        write(tmp_path, f"{mount}/{group}/memory.stat", f"{cache} 200000\n")
    assert memory.available(tmp_path) == 2_000_000
    assert memory.total(tmp_path) == 3_000_000


def test_the_peak_is_known_without_proc(tmp_path):
    if memory.resource is None:
        pytest.skip("no getrusage on this system")
    ours = memory.peak(root=tmp_path)
    assert ours == pytest.approx(memory.peak(), rel=0.2)
    assert memory.available(tmp_path) == memory.total(tmp_path) > 10**8


# --- independence of the number of images ------------------------------------------------------


def peak_of_a_run(settings, answer):
    network_lib.build = small_network.small_build
    train.phase1((), settings)
    answer.put(memory.peak())


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_images(tmp_path):
    """Held in memory, the views of 900 more images would be 1.3 GB.

    The smaller run is long enough for the allocator's own growth, 0.2 GB, to have ended.
    """
    peaks = []
    for per_class in (100, 400):
        root = tmp_path / str(per_class)
        helpers.write_classes(root / "train", per_class, seed=1)
        helpers.write_classes(root / "val", per_class, seed=2)
        settings = config.Config.of(
            dataset=str(root),
            runs_dir=str(tmp_path / "runs"),
            run=str(per_class),
            xception_weights="none",
            epochs=(2, 2),
            batch_size=(4, 4),
        )
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        process = context.Process(target=peak_of_a_run, args=(settings, answer))
        process.start()
        peaks.append(answer.get(timeout=250))
        process.join()
    assert peaks[1] - peaks[0] < 150e6, peaks
