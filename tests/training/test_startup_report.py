"""The lines at a phase's start: speed, memory, whether phase 2 will fit."""

import math
import types

import pytest

from cnnrnn import config, phases
from cnnrnn.commands import train
from cnnrnn.datasets import input_pipeline
from cnnrnn.models import network as network_lib
from cnnrnn.settings import image_sizes
from cnnrnn.system import devices, gpu_memory, memory, progress, scheduler
from cnnrnn.training import cost, feature_cache, size_schedule, startup_report, trainer
from tests import small_network as small_network_lib


@pytest.fixture
def clock(monkeypatch):
    """Time passes only when the test says so."""
    now = [0.0]
    monkeypatch.setattr(startup_report.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def report(clock, capsys):
    """Runs steps of given durations, with 1000 s between epochs, and returns what is printed."""

    def run(seconds, *, epochs, steps_per_epoch, steps_done=0, limit=math.inf, sizes="299"):
        speed = startup_report.SpeedReport(
            phases.PHASE1,
            phases.Schedule(epochs, 10, 1e-3, steps_per_epoch),
            size_schedule.SizeSchedule(image_sizes.parse(sizes)[0], epochs * steps_per_epoch),
            steps_done=steps_done,
            validation_images=30,
            limit=limit,
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
    (line,) = report([60, 1, 2, 3], epochs=2, steps_per_epoch=14, limit=106)  # --max_minutes
    assert line.endswith("about 40 s left")


def test_validation_costs_by_its_size(report):
    (line,) = report([60, 1, 2, 3], epochs=2, steps_per_epoch=14, sizes="100")
    assert line.endswith("about 1 min 24 s left")  # 240 + 20 * 2.99 ** 2 images at 5 a second


def test_the_pause_between_epochs_is_not_timed(report):
    lines = report([60, 2, 9, 2, 2, 2], epochs=3, steps_per_epoch=5, steps_done=3)
    assert [line.split(",")[0] for line in lines] == ["phase1: 5.0 images/s"]


@pytest.mark.parametrize(
    "steps_per_epoch, words", [(2, "10.0 images/s"), (3, "6.7 images/s"), (4, "5.0 images/s")]
)
def test_in_short_epochs_the_steps_after_the_first_are_timed(report, steps_per_epoch, words):
    (line,) = report([60, 1, 2, 3, 9, 9, 9], epochs=3, steps_per_epoch=steps_per_epoch)
    assert f"phase1: {words}," in line


def test_epochs_of_one_step_report_nothing(report):
    assert report([1] * 6, epochs=6, steps_per_epoch=1) == []


@pytest.mark.usefixtures("instant_training")
@pytest.mark.parametrize(
    "changes, factor",
    [({}, 1), ({"feature_cache": "off"}, 4), ({"fusion": "rnn"}, 1)],
    ids=["cached", "computed", "no CNN"],
)
def test_the_progress_of_an_epoch_counts_validations(
    small_config, small_network, monkeypatch, changes, factor
):
    later = {}

    class Progress(progress.Progress):
        def __init__(self, label, *arguments, **settings):
            later[label] = settings.get("later")
            super().__init__(label, *arguments, **settings)

    monkeypatch.setattr(progress, "Progress", Progress)
    known = input_pipeline.ConstantFeatures(6)
    monkeypatch.setattr(feature_cache.FeatureCache, "features", lambda *_: known)
    settings = {"cnn_image_size": "80", "eval_image_size": 160, **changes}
    train.train((phases.PHASE1,), small_config.replace(**settings))
    # 9 images after each of two epochs of 4 steps of 4.
    assert later["phase1 epoch 1/2"] == 16 + 6 * factor
    assert later["phase1 epoch 2/2"] == 3 * factor


def test_the_time_left_counts_larger_images_later_in_the_epoch():
    shares = (image_sizes.SizeShare(100, 0.5), image_sizes.SizeShare(200, 0.5))
    schedule = phases.Schedule(1, 10, 1e-3, 8)
    report = startup_report.SpeedReport(
        phases.PHASE1,
        schedule,
        size_schedule.SizeSchedule(shares, 8, eval_size=200),
        steps_done=0,
        validation_images=30,
    )
    # An image of twice the width costs four times as much; in validation a third of that.
    assert report.later_than_epoch(0) == pytest.approx(4 * 3 * 10 + 30 * 4 / 3)
    assert report.later_than_epoch(2) == pytest.approx(4 * 3 * 10 + 30 * 4 / 3)
    assert report.later_than_epoch(4) == pytest.approx(30 / 3)


@pytest.mark.usefixtures("instant_training")
def test_the_progress_of_an_epoch_counts_its_larger_images(
    small_config, small_network, monkeypatch
):
    later = []

    class Progress(progress.Progress):
        def __init__(self, label, *arguments, **settings):
            if "later" in settings:
                later.append(settings["later"])
            super().__init__(label, *arguments, **settings)

        def at_another_rate(self, images):
            later.append(images)
            super().at_another_rate(images)

    monkeypatch.setattr(progress, "Progress", Progress)
    settings = {"cnn_image_size": "80:0.5,160:0.5", "eval_image_size": 160, "feature_cache": "off"}
    train.train((phases.PHASE1,), small_config.replace(epochs=(1, 1), **settings))
    # 4 steps of 4 images, and 9 images of validation.
    assert later == [2 * 3 * 4 + 9 * 4 / 3, 9 / 3]


@pytest.mark.parametrize(
    "total, words", [(85_900_000_000, "5.1 GB of 85.9 GB,"), (None, "5.1 GB, ")]
)
def test_on_a_gpu_the_memory_is_that_of_the_gpu(report, monkeypatch, total, words):
    monkeypatch.setattr(gpu_memory, "peak", lambda: 5_100_000_000)
    monkeypatch.setattr(gpu_memory, "total", lambda: total)
    (line,) = report([60, 1, 2, 3], epochs=2, steps_per_epoch=14)
    assert f"peak GPU memory {words}" in line


def test_each_phase_measures_its_own_gpu_memory(trained, small_network, monkeypatch):
    events = []
    monkeypatch.setattr(gpu_memory, "reset", lambda: events.append("reset"))
    monkeypatch.setattr(
        trainer.PhaseTrainer, "_run_epochs", lambda self: events.append(self._phase)
    )
    settings, both = trained.replace(epochs=(3, 1)), (phases.PHASE1, phases.PHASE2)
    train.train(both, settings)
    assert events == ["reset", phases.PHASE1, "reset", phases.PHASE2]


@pytest.mark.parametrize(
    "phase, batch_sizes, gpus, share, enough",
    [
        (0, (32, 16), 8, 4, "128,128"),
        (1, (32, 16), 8, 2, "128,128"),
        (1, (256, 64), 8, 8, "256,128"),
        (0, (30, 64), 2, 15, "32,64"),
    ],
)
def test_small_shares_of_several_gpus_are_warned_of(phase, batch_sizes, gpus, share, enough):
    warning = startup_report.small_share(phase, batch_sizes, gpus)
    assert f"gives each of {gpus} GPUs {share} images" in warning
    assert f"--batch_size={enough} gives each at least 16" in warning


@pytest.mark.parametrize("batch_size, gpus", [(4, 0), (4, 1), (32, 2), (128, 8)])
def test_a_cpu_one_gpu_and_large_shares_are_not_warned_of(batch_size, gpus):
    assert startup_report.small_share(0, (batch_size, batch_size), gpus) == ""


def test_small_shares_are_warned_of_once_per_phase(monkeypatch, capsys):
    monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"] * 8)
    network, settings = small_network_lib.small_build(3), config.Config.of(batch_size=(128, 16))
    for phase in (phases.PHASE1, phases.PHASE2):
        schedule = phases.Schedule(1, settings.training.batch_size[phase.index], 1e-3, 9)
        startup_report.report_phase(phase, schedule, network, settings)
    output = capsys.readouterr().out
    assert output.count("warning: ") == 1
    assert "a batch of 16 gives each of 8 GPUs 2 images" in output


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"warmup_epochs": (5, 5)}, "--warmup_epochs=5 takes all of phase1 (--epochs=3)"),
        ({"warmup_epochs": (2, 2)}, ""),
        ({"cached_views": 8, "augmentation": "flip", "feature_cache": "off"}, "limits each image"),
        ({"cached_views": 8, "augmentation": "flip"}, ""),
        ({"cached_views": 8, "augmentation": "flip", "feature_cache": "off", "fusion": "rnn"}, ""),
        ({"phase2_batchnorm": "frozen", "batchnorm_momentum": "auto"}, "=auto has no effect with"),
        ({"phase2_batchnorm": "frozen"}, ""),
    ],
)
def test_settings_that_do_not_do_what_they_say_are_warned_of(settings, words, capsys):
    settings = config.Config.of(epochs=(3, 3), **settings)
    variant = network_lib.Variant(settings.network.fusion)
    network = small_network_lib.small_build(3, variant=variant)
    for phase in (phases.PHASE1, phases.PHASE2):
        schedule = phases.schedule(phase, settings, 600)
        startup_report.report_phase(phase, schedule, network, settings)
    output = capsys.readouterr().out
    assert words in output and ("warning: " in output) == bool(words)


def test_on_gpus_nothing_is_said_of_phase2s_memory(one_replica, monkeypatch, capsys):
    monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"])
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    network = small_network_lib.small_build(3)
    startup_report.report_phase2_memory(config.Config(), network, one_replica)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("instant_training")
def test_a_run_reports_its_speed_and_warns_if_phase2_does_not_fit(
    small_config, small_network, monkeypatch, capsys
):
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 10**8)
    settings = small_config.replace(epochs=(1, 1), batch_size=(4, 64))
    train.train((phases.PHASE1,), settings)
    output = capsys.readouterr().out
    assert ", float32, on the CPU, LSTM kernel: ours (one product for all timesteps)\n" in output
    assert "phase1: " in output and "images/s, peak memory" in output
    warning = next(line for line in output.splitlines() if line.startswith("warning"))
    assert "phase 2 at --batch_size=64 will take" in warning
    assert "1.1 GB are available. It will not fit: close other programs first." in warning
    train.train((phases.PHASE1,), settings.replace(run="alone"), is_last=False)
    assert "phase 2 at" not in capsys.readouterr().out


def test_the_warning_names_the_largest_batch_that_fits(one_replica, monkeypatch, capsys):
    network = small_network_lib.small_build(3)
    monkeypatch.setattr(memory, "available", lambda: 8 * 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 0)
    parameters = network.model.count_params()
    largest = cost.largest_phase2_batch(8 * 10**9, parameters, half=False)
    for batch in (largest + 1, largest):
        settings = config.Config.of(batch_size=(8, batch))
        startup_report.report_phase2_memory(settings, network, one_replica)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warning: ")
    assert lines[0].endswith(
        f"It will not fit: use --batch_size=8,{largest} or less, or more --accumulation_steps."
    )
    assert lines[1].startswith("memory: ") and "will not fit" not in lines[1]


def test_a_network_without_a_cnn_needs_no_memory_for_its_images(one_replica, monkeypatch, capsys):
    network = small_network_lib.small_build(3, variant=network_lib.Variant("rnn"))
    monkeypatch.setattr(memory, "resident", lambda: 0)
    settings = config.Config.of(batch_size=(8, 64), fusion="rnn")
    for available, words in ((2, "memory: "), (1, "warning: ")):
        monkeypatch.setattr(memory, "available", lambda available=available: available * 10**9)
        startup_report.report_phase2_memory(settings, network, one_replica)
        output = capsys.readouterr().out
        assert output.startswith(words) and "will take 1.4 GB" in output
    assert "It will not fit: close other programs first." in output


@pytest.mark.parametrize(
    "hosts, available, words",
    [
        (("a", "b"), 0.8, "memory: "),
        (("a", "a"), 1.4, "warning: "),
        (("a", "a"), 1.6, "memory: "),
    ],
)
def test_the_memory_of_workers_is_counted_by_machine(monkeypatch, capsys, hosts, available, words):
    network = small_network_lib.small_build(3)
    monkeypatch.setenv(scheduler.TF_CONFIG, scheduler.tf_config([f"{host}:1" for host in hosts], 0))
    workers = types.SimpleNamespace(count=2)
    monkeypatch.setattr(startup_report.workers_lib, "Workers", lambda _: workers)
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    own = cost.phase2_memory(8, network.model.count_params(), half=False)
    monkeypatch.setattr(memory, "resident", lambda: own // 4)  # by each worker, for phase 1
    monkeypatch.setattr(memory, "available", lambda: int(available * own))
    settings = config.Config.of(batch_size=(8, 16))
    startup_report.report_phase2_memory(settings, network, strategy)
    output = capsys.readouterr().out
    assert output.startswith(words) and "(estimate) on this machine; " in output


@pytest.mark.parametrize(
    "sizes, words",
    [("160", "memory: "), ("299/160", "memory: "), ("160/71:0.5,299:0.5", "warning: ")],
)
def test_the_largest_image_size_of_phase2_decides(one_replica, monkeypatch, capsys, sizes, words):
    """32 images take 9.3 GB at 299x299, 2.7 GB at 160x160."""
    monkeypatch.setattr(memory, "available", lambda: 6 * 10**9)
    monkeypatch.setattr(memory, "resident", lambda: 0)
    settings = config.Config.of(batch_size=(8, 32), cnn_image_size=sizes)
    startup_report.report_phase2_memory(settings, small_network_lib.small_build(3), one_replica)
    assert capsys.readouterr().out.startswith(words)
