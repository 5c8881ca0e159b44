"""`find-lr`: its files and its answer; the run is untouched; mistakes are found early."""

import csv
import signal

import keras
import PIL.Image
import pytest

from cnnrnn import errors
from cnnrnn.commands import find_lr
from cnnrnn.models import network
from cnnrnn.training import rate_search, steps


def contents(root):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(rate_search, "STEPS", 12)


@pytest.mark.thorough
def test_phase1_needs_no_run(small_network, small_config, few_steps, capsys):
    find_lr.run((), small_config)
    assert not small_config.run_dir.exists()
    target = small_config.run_dir.with_name("test.find-lr") / "phase1"
    with open(target.with_suffix(".csv"), newline="") as file:
        table = list(csv.DictReader(file))
    assert 1 <= len(table) <= 12 and float(table[0]["learning_rate"]) == pytest.approx(1e-7)
    with PIL.Image.open(target.with_suffix(".png")) as image:
        assert image.format == "PNG"
    output = capsys.readouterr().out
    assert "learning rate" in output and f"plot         {target}.png" in output
    assert output.count("\n     5") == 1  # a line every five steps


@pytest.mark.usefixtures("instant_training")
def test_a_run_stays_as_it_is(small_network, trained, few_steps, capsys, monkeypatch):
    """Also one whose phase has begun: nothing of it is lost."""
    before = contents(trained.run_dir)
    monkeypatch.setattr(rate_search, "suggestion", lambda points: 0.00123)
    for phase, flag in (("phase1", "0.0012,0.0001"), ("phase2", "0.001,0.0012")):
        find_lr.run((), trained.replace(phase=phase))
        output = capsys.readouterr().out
        assert f"--learning_rate={flag}\n" in output
    assert "phase2: starts from" in output
    assert contents(trained.run_dir) == before


@pytest.mark.thorough
def test_the_step_is_that_of_the_planned_run(small_network, small_config, monkeypatch):
    """But for the schedule of the rate and averages of the weights."""
    made = []

    def make_train_step(state, strategy, global_batch, options):
        def step(batch):
            made.extend([state, global_batch, options, batch])
            raise errors.Stopped(signal.SIGINT)

        return step

    monkeypatch.setattr(steps, "make_train_step", make_train_step)
    settings = {"optimizer": ("sgd", "adam"), "schedule": ("cosine", "cosine"), "ema": 0.9}
    settings |= {"clip_norm": 2.0, "label_smoothing": 0.1, "class_weights": "balanced"}
    settings |= {"augmentation": "flip", "mixup": 0.2, "cnn_image_size": "160:0.5,299:0.5"}
    with pytest.raises(errors.Stopped):
        find_lr.run((), small_config.replace(**settings))
    state, global_batch, options, batch = made
    assert batch["image"].shape == (4, 160, 160, 3) and "share" in batch
    assert isinstance(state.optimizer, keras.optimizers.SGD)
    assert state.average is None and global_batch == 4
    state.optimizer.learning_rate = 0.25  # of a schedule it could not be set
    assert options.clip_norm == 2.0 and options.loss.label_smoothing == 0.1
    assert options.loss.class_weights is not None


def test_wrong_use_is_reported_before_the_network_is_built(small_config, monkeypatch):
    monkeypatch.setattr(network, "build", lambda *_, **__: pytest.fail("built"))
    phase2 = small_config.replace(phase="phase2")
    with pytest.raises(errors.UsageError, match="Run phase1 with the same flags first"):
        find_lr.run((), phase2)
    for change, message in (
        ({"init_from": "/no-such-run"}, "no trained weights in /no-such-run"),
        ({"batch_size": (64, 64)}, "fewer than one batch of 64"),
        ({"accumulation_steps": (3, 1)}, "do not go together"),
    ):
        with pytest.raises(errors.UsageError, match=message):
            find_lr.run((), small_config.replace(**change))
    small_config.run_dir.parent.mkdir(parents=True)
    small_config.run_dir.with_name("test.find-lr").write_text("in the way")
    with pytest.raises(errors.RunError, match="cannot write"):
        find_lr.run((), small_config)


def test_a_stop_signal_leaves_no_plot(small_network, small_config, few_steps, monkeypatch):
    def stop(*arguments):
        raise errors.Stopped(signal.SIGINT)
        yield

    monkeypatch.setattr(rate_search, "search", stop)
    with pytest.raises(errors.Stopped):
        find_lr.run((), small_config)
    folder = small_config.run_dir.with_name("test.find-lr")
    assert not list(folder.glob("*.png")) and not small_config.run_dir.exists()
