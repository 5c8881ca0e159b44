"""Whole runs of the training loop on the small network and eighteen images."""

import contextlib
import errno
import json
import multiprocessing
import pathlib
import shutil
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.commands import evaluate, train
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, checkpoints, run_folder
from cnnrnn.system import console, memory, stop_signals
from cnnrnn.training import steps, tensorboard
from tests import (
    conftest,
    helpers,
    instant,
    small_network,
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("small_network")


def recipe(config):
    """Both phases and the evaluation on the small network."""
    both = (phases.PHASE1, phases.PHASE2)
    train.train(both, config, evaluates=True)


def phase1(config):
    train.train((phases.PHASE1,), config)


def phase2(config):
    train.train((phases.PHASE2,), config)


def weights_of_best(config, phase):
    best = best_weights.find(run_folder.RunFolder(config.run_dir).best, phase)
    model = small_network.small_build(3).model
    model.load_weights(best.weights)
    return model.get_weights()


def scalars(folder):
    """{(tag): [(step, value), ...]} of the event files in a folder."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                kind = value.metadata.plugin_data.plugin_name
                number = float(tf.make_ndarray(value.tensor)) if kind == "scalars" else None
                found.setdefault(value.tag, []).append((event.step, number))
    return found


@contextlib.contextmanager
def fast_runs(shared_run, root):
    """With graphs as in the program, and cached features: one epoch alone would not cache them."""
    conftest.copy_cache(shared_run, root / "cache")
    with conftest.fast_runs(root / "cache", optimized_graphs=True):
        yield


@pytest.fixture(scope="module")
def whole_recipe(shared_run, tmp_path_factory):
    """The settings of both phases and the evaluation, and what they print."""
    root = tmp_path_factory.mktemp("whole")
    config = shared_run.replace(runs_dir=str(root / "runs"))
    with (
        fast_runs(shared_run, root),
        pytest.MonkeyPatch.context() as patch,
        console.captured() as messages,
    ):
        conftest.draw_nothing(patch)  # the files are written all the same
        recipe(config)
    return config, "\n".join(messages)


@pytest.fixture(scope="module")
def recipe_in_parts(shared_run, tmp_path_factory):
    """The settings of both phases with a start for each epoch, and what the starts print."""
    root = tmp_path_factory.mktemp("parts")
    config = shared_run.replace(runs_dir=str(root / "runs"))
    printed = []
    with fast_runs(shared_run, root):
        for phase, epochs in (
            (phase1, (1, 1)),
            (phase1, (2, 1)),
            (phase2, (2, 1)),
            (phase2, (2, 2)),
        ):
            with console.captured() as messages:
                phase(config.replace(epochs=epochs))
            printed.append("\n".join(messages))
    return config, printed


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """A start ends before its first step."""

    def stop(*_):
        raise errors.Stopped(signal.SIGTERM)

    monkeypatch.setattr(steps, "make_train_step", stop)
    return pytest.raises(errors.Stopped)


def test_the_recipe_writes_all_files(whole_recipe):
    config, output = whole_recipe
    root = config.run_dir
    results = json.loads((root / "results.json").read_text())
    assert results["phase"] == "phase2" and results["validation"]["count"] == 9
    manifest = json.loads((root / "manifest.json").read_text())
    assert set(manifest) == {"phase1", "phase2"}
    assert manifest["phase1"]["dataset"]["fingerprint"] == results["fingerprint"]
    assert manifest["phase1"]["xception_weights"]["kind"] == "random"
    assert manifest["phase2"]["batchnorm"] == "train"
    assert manifest["phase2"]["started_from"].endswith("of phase1)")
    lines = (root / "evaluation" / "per_label.tsv").read_text().splitlines()
    assert lines[0] == "label\ttop-1\ttop-5\tprecision\tf1\timages"
    assert [line.split("\t")[0] for line in lines[1:]] == list(helpers.CLASSES)
    for name in ("top1_by_label.png", "top5_by_label.png"):
        assert (root / "evaluation" / name).read_bytes().startswith(b"\x89PNG")
    assert not list(root.rglob(".partial-*"))
    assert str(root) in output and "next " not in output  # the recipe continues by itself


def test_a_phase_reports_its_end_and_the_next_command(recipe_in_parts):
    config, printed = recipe_in_parts
    for output, following in zip(
        printed, ("phase2", "phase2", "evaluate", "evaluate"), strict=True
    ):
        assert output.count(" is done. Best epoch ") == 1
        assert str(config.run_dir) in output and f"next      ./run.sh {following}" in output


@pytest.mark.parametrize("complete_summaries", [True], ids=[""])
@pytest.mark.thorough
def test_tensorboard_gets_its_curves_and_images(small_config):
    phase1(small_config)
    folder = run_folder.RunFolder(small_config.run_dir)
    training = scalars(folder.events(phases.PHASE1, "train"))
    validation = scalars(folder.events(phases.PHASE1, "validation"))
    for tag in (
        "loss",
        "top1",
        "top5",
        "learning_rate",
        "images_per_second",
        "waiting_for_input",
        "minutes",
        "cpu_minutes",
    ):
        assert [step for step, _ in training[tag]] == [4, 8]
    for tag in ("loss", "top1", "top5"):
        assert [step for step, _ in validation[tag]] == [4, 8]
    assert training["learning_rate"][0][1] == pytest.approx(1e-3)
    assert {"flags", "input/train_batch", "input/rgb", "input/gray_sequence"} <= set(training)
    assert folder.train_batch(phases.PHASE1).read_bytes().startswith(b"\x89PNG")
    assert "predictions" in validation
    events = next(folder.events(phases.PHASE1, "train").glob("*"))
    graphs = [
        event.graph_def
        for event in map(
            lambda record: tf.compat.v1.Event.FromString(record.numpy()),
            tf.data.TFRecordDataset(str(events)),
        )
        if event.graph_def
    ]
    assert len(graphs) == 1 and b"lstm_1" in graphs[0]


def test_it_learns(small_config):
    config = small_config.replace(
        epochs=(2, 1), samples_per_epoch=(80, 80), learning_rate=(0.03, 1e-3)
    )
    phase1(config)
    best = best_weights.find(config.run_dir / "best", phases.PHASE1)
    assert best.validation.top1 >= 0.6
    assert best.validation.loss < np.log(3) - 0.1


def test_a_resumed_run_equals_an_uninterrupted_one(whole_recipe, recipe_in_parts):
    (whole, _), (parts, _) = whole_recipe, recipe_in_parts
    for phase in phases.BY_NAME.values():
        for a, b in zip(weights_of_best(whole, phase), weights_of_best(parts, phase), strict=True):
            np.testing.assert_array_equal(a, b)
        curves = [
            scalars(config.run_dir / "events" / phase.name / "train") for config in (whole, parts)
        ]
        assert curves[0]["loss"] == curves[1]["loss"]


@pytest.mark.slow  # thorough: with all options, in test_trainer_options
@pytest.mark.parametrize("steps_before_the_kill", [1, 4, 6])  # 4: an epoch's end
def test_a_run_killed_in_an_epoch_resumes_from_its_checkpoint(
    trained, monkeypatch, steps_before_the_kill
):
    killed = trained.replace(run="killed", checkpoint_minutes=1e-9)  # after every step

    class Killed(BaseException):
        pass

    make = steps.make_train_step
    seen = []

    def make_that_dies(*arguments, **keywords):
        step = make(*arguments, **keywords)

        def counted(batch):
            if len(seen) == steps_before_the_kill:
                raise Killed
            seen.append(batch["index"].numpy())
            return step(batch)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(steps, "make_train_step", make_that_dies)
        with pytest.raises(Killed):
            phase1(killed)
    phase1(killed)
    for a, b in zip(
        weights_of_best(trained, phases.PHASE1), weights_of_best(killed, phases.PHASE1), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    curves = [
        scalars(config.run_dir / "events" / "phase1" / "train") for config in (trained, killed)
    ]
    assert curves[0]["loss"] == curves[1]["loss"]


def test_a_finished_phase_is_reported_and_changes_nothing(trained, capsys):
    def times():
        files = (*trained.run_dir.rglob("*.h5"), trained.run_dir / "config.json")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    phase1(trained.replace(epochs=(1, 2)))
    output = capsys.readouterr().out
    assert "phase1 is done" not in output and "all 1 epochs are done" in output
    assert before == times()


def test_a_phase_that_is_ended_with_fewer_epochs_is_recorded_as_complete(trained):
    """As after a stop: what is left out is never trained, and `reproduce` must not expect it."""
    path = trained.run_dir / "config.json"
    record = json.loads(path.read_text())
    record["phase1"]["epochs"] = [5, 3]
    path.write_text(json.dumps(record))
    phase1(trained.replace(epochs=(2, 3)))
    assert json.loads(path.read_text())["phase1"]["epochs"] == [2, 3]


def test_phase2_without_phase1_is_refused(small_config):
    with pytest.raises(errors.UsageError, match="Run phase1 with the same flags first"):
        phase2(small_config)
    assert not small_config.run_dir.exists()


def test_phase2_starts_from_phase1s_best(trained, monkeypatch):
    started = []

    def stop(state, *_):
        started.extend(state.network.model.get_weights())
        raise errors.Stopped(signal.SIGTERM)

    monkeypatch.setattr(steps, "make_train_step", stop)
    with pytest.raises(errors.Stopped):
        phase2(trained)
    for a, b in zip(weights_of_best(trained, phases.PHASE1), started, strict=True):
        np.testing.assert_array_equal(a, b)


def test_init_from_another_run(trained, nothing_is_trained, capsys):
    other = trained.replace(run="other", init_from=str(trained.run_dir))
    with nothing_is_trained:
        phase2(other)
    assert f"starts from {trained.run_dir}" in capsys.readouterr().out
    nowhere = trained.replace(run="third", init_from="/nowhere")
    with pytest.raises(errors.UsageError, match="no trained weights in /nowhere"):
        phase1(nowhere)


def test_a_run_folder_made_with_other_settings_is_refused(trained):
    with pytest.raises(errors.UsageError, match="--batch_size=4 .now 2."):
        phase1(trained.replace(batch_size=(2, 2)))


def test_settings_of_one_phase_do_not_bind_the_other(trained, nothing_is_trained):
    with nothing_is_trained:
        phase2(trained.replace(batch_size=(8, 3), checkpoint_minutes=3.0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": (19, 2)}, "18 training images, fewer than one batch of 19"),
        ({"samples_per_epoch": (3, 3)}, "--samples_per_epoch=3 is less than one batch"),
    ],
)
def test_too_little_for_a_batch_is_refused(small_config, change, message):
    with pytest.raises(errors.UsageError, match=message):
        phase1(small_config.replace(**change))


@pytest.mark.usefixtures("instant_training")
def test_short_epochs_continue_in_the_shuffled_order(small_config, monkeypatch):
    rows = []
    make = steps.make_train_step

    def spy(*arguments, **keywords):
        step = make(*arguments, **keywords)
        return lambda batch: rows.extend(batch["index"].tolist()) or step(batch)

    monkeypatch.setattr(steps, "make_train_step", spy)
    phase1(small_config.replace(samples_per_epoch=(8, 8), batch_size=(2, 2)))
    assert len(rows) == 16 and len(set(rows)) == 16


def test_a_non_finite_loss_stops_the_run_and_names_the_step(small_config, monkeypatch):
    def poisoned(*arguments, **keywords):
        network = small_network.small_build(*arguments, **keywords)
        bias = network.model.get_layer("logits").bias
        bias.assign(np.full(bias.shape, np.nan, np.float32))
        return network

    monkeypatch.setattr(network_lib, "build", poisoned)
    with pytest.raises(errors.RunError, match="the loss is not finite at step 1 of epoch 1"):
        phase1(small_config)
    assert not list((small_config.run_dir / "checkpoints").rglob("*.index"))


class ReadOnHost:
    """An output of a step, which records when the host reads it."""

    def __init__(self, tensor, on_read):
        self._tensor, self._on_read = tensor, on_read

    def numpy(self):
        self._on_read()
        return self._tensor.numpy()


@pytest.fixture
def recorded_steps(instant_training, monkeypatch):
    """Records launches and reads of instant steps as ("launch" or "read", number).

    The loss of the step with the number `recorded_steps.non_finite` is not finite, and
    `recorded_steps.after_launch(number)` is called.
    """
    recorder = types.SimpleNamespace(events=[], non_finite=None, after_launch=lambda number: None)
    make = steps.make_train_step

    def make_recorded(*arguments):
        step = make(*arguments)

        def recorded(batch):
            number = sum(kind == "launch" for kind, _ in recorder.events) + 1
            recorder.events.append(("launch", number))
            sums, non_finite = step(batch)
            if number == recorder.non_finite:
                sums *= np.nan
            recorder.after_launch(number)
            return ReadOnHost(sums, lambda: recorder.events.append(("read", number))), non_finite

        return recorded

    monkeypatch.setattr(steps, "make_train_step", make_recorded)
    return recorder


def saved_steps(config):
    """(epoch, step) of each checkpoint, oldest first."""
    folder = run_folder.RunFolder(config.run_dir).checkpoints(phases.PHASE1)
    readers = [
        tf.train.load_checkpoint(str(path / "variables")) for path in sorted(folder.glob("[0-9]*"))
    ]
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    return [
        (int(r.get_tensor(f"epoch{value}")), int(r.get_tensor(f"step{value}"))) for r in readers
    ]


def test_a_step_is_launched_before_the_results_of_the_previous_one_are_read(
    small_config, recorded_steps
):
    phase1(small_config.replace(epochs=(1, 1)))
    assert recorded_steps.events == [
        ("launch", 1), ("launch", 2), ("read", 1), ("launch", 3), ("read", 2), ("launch", 4),
        ("read", 3), ("read", 4),
    ]  # fmt: skip


def test_all_launched_steps_are_read_before_a_checkpoint(small_config, recorded_steps, monkeypatch):
    save = checkpoints.Checkpoints.save

    def recorded_save(self):
        recorded_steps.events.append(("save", sum(e[0] == "launch" for e in recorded_steps.events)))
        save(self)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", recorded_save)
    phase1(small_config.replace(epochs=(1, 1), checkpoint_minutes=1e-9))
    by_step = [[("launch", n), ("read", n), ("save", n)] for n in range(1, 5)]
    assert recorded_steps.events == [*sum(by_step, []), ("save", 4)]  # the last: the epoch's end


@pytest.mark.parametrize("saves", ["checkpoint due", "stop signal", "end of epoch"])
def test_a_step_that_is_not_finite_is_found_before_it_is_saved(
    small_config, recorded_steps, monkeypatch, saves
):
    step = 4 if saves == "end of epoch" else 3
    recorded_steps.non_finite = step

    def after_launch(number):
        if number == step and saves == "checkpoint due":
            monkeypatch.setattr(checkpoints.Checkpoints, "is_due", True)
        if number == step and saves == "stop signal":
            monkeypatch.setattr(stop_signals, "_requested", signal.SIGTERM)

    recorded_steps.after_launch = after_launch
    with pytest.raises(errors.RunError, match=f"the loss is not finite at step {step} of epoch 1"):
        phase1(small_config)
    assert not list((small_config.run_dir / "checkpoints").rglob("*.index"))
    assert best_weights.find(small_config.run_dir / "best", phases.PHASE1) is None


def test_a_stop_signal_saves_the_step_that_is_under_way(small_config, recorded_steps, monkeypatch):
    """The next start continues after it, with the images that follow."""
    starts, training = [], input_pipeline.training

    def recorded_training(*arguments, start, **keywords):
        starts.append(start)
        return training(*arguments, start=start, **keywords)

    monkeypatch.setattr(input_pipeline, "training", recorded_training)

    def after_launch(number):
        if number == 3:
            monkeypatch.setattr(stop_signals, "_requested", signal.SIGTERM)

    recorded_steps.after_launch = after_launch
    with pytest.raises(errors.Stopped):
        phase1(small_config)
    assert recorded_steps.events[-1] == ("read", 3)
    assert saved_steps(small_config) == [(0, 3)]
    monkeypatch.setattr(stop_signals, "_requested", None)
    phase1(small_config)
    assert recorded_steps.events[-1] == ("read", 8)  # two epochs of four steps of four images
    assert starts == [0, 12]


def damage_file(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    "place, damage",
    [
        ("train/gray", damage_file),
        ("val/white", pathlib.Path.unlink),
        pytest.param("train/gray", pathlib.Path.unlink, marks=pytest.mark.slow),
        pytest.param("val/white", damage_file, marks=pytest.mark.slow),
    ],
)
def test_an_image_damaged_after_the_check_stops_the_run_and_is_named(
    own_images, images, monkeypatch, place, damage
):
    path = sorted((images / place).iterdir())[2]
    load = dataset_lib.load

    def load_then_damage(config):
        data = load(config)
        damage(path)
        return data

    monkeypatch.setattr(dataset_lib, "load", load_then_damage)
    with pytest.raises(errors.RunError, match=f"cannot decode {path} .*has changed since"):
        phase1(own_images)


@pytest.mark.thorough
def test_bad_images_can_be_skipped(own_images, images):
    path = sorted((images / "train" / "gray").iterdir())[2]
    damage_file(path)
    with pytest.raises(errors.UsageError, match=f"1 of 27 images .*{path}"):
        phase1(own_images)
    assert not own_images.run_dir.exists()
    skipping = own_images.replace(bad_images="skip")
    phase1(skipping)
    evaluate.run((), skipping)
    with pytest.raises(errors.UsageError, match="images cannot be used"):
        evaluate.run((), own_images)


@pytest.mark.thorough
def test_a_generated_split_is_recorded(small_config, nothing_is_trained, tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 6)
    config = small_config.replace(dataset=str(root), validation_fraction=0.34, feature_cache="off")
    with nothing_is_trained:
        phase1(config)
    lines = (config.run_dir / "split.tsv").read_text().splitlines()
    assert len(lines) == 2 + 18
    held_out = [line for line in lines if line.startswith("validation\t")]
    assert len(held_out) == 6 and all(str(root) in line for line in held_out)


def test_evaluate_reads_the_best_weights(trained, monkeypatch, one_replica):
    best = best_weights.find(trained.run_dir / "best", phases.PHASE1)
    evaluate.run((), trained)
    results = json.loads((trained.run_dir / "results.json").read_text())
    assert results["epoch"] == best.epoch
    for name in ("loss", "top1", "top5"):
        assert results["validation"][name] == pytest.approx(
            getattr(best.validation, name), abs=1e-6
        )
    with pytest.raises(errors.UsageError, match="other images"):
        evaluate.run((), trained.replace(validation_per_class=1))
    with pytest.raises(errors.UsageError, match="run phase1 first"):
        evaluate.run((), trained.replace(run="untrained"))


@pytest.mark.usefixtures("instant_training")
def test_a_full_disk_is_reported_and_earlier_weights_stay(trained, monkeypatch):
    kept = weights_of_best(trained, phases.PHASE1)

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save_weights", full)
        patch.setattr(phases.Phase, "is_better", lambda *_: True)
        with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
            phase1(trained.replace(epochs=(3, 1)))
    for a, b in zip(kept, weights_of_best(trained, phases.PHASE1), strict=True):
        np.testing.assert_array_equal(a, b)
    phase1(trained.replace(epochs=(3, 1)))


@pytest.mark.usefixtures("instant_training")
def test_a_full_disk_at_a_checkpoint_is_reported(small_config, monkeypatch):
    def full(*arguments, **keywords):
        raise tf.errors.ResourceExhaustedError(None, None, "x.data; No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
        phase1(small_config)


@pytest.mark.usefixtures("instant_training")
@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_full_disk_at_the_curves_is_reported(small_config, monkeypatch, capsys, on_failure):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "events; No space left on device")

    monkeypatch.setattr(tensorboard.Summaries, "flush", full)
    config = small_config.replace(on_save_failure=on_failure)
    if on_failure == "stop":
        with pytest.raises(errors.RunError, match="cannot save to .*No space left"):
            phase1(config)
    else:
        phase1(config)
        assert "No space left on device" in capsys.readouterr().out
    assert run_folder.RunFolder(config.run_dir).has_checkpoint(phases.PHASE1) == (
        on_failure == "continue"
    )


@pytest.mark.usefixtures("instant_training")
def test_free_space_is_checked_before_writing(small_config, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(errors.RunError, match="saving needs 0 MB .* where 0 MB are free"):
        phase1(small_config)


def test_a_mistake_at_the_start_does_not_bind_the_run_folder(small_config, nothing_is_trained):
    for mistake in ({"xception_weights": "/nowhere.h5"}, {"init_from": "/nowhere"}):
        with pytest.raises(errors.UsageError, match="nowhere"):
            phase1(small_config.replace(**mistake))
    with nothing_is_trained:
        phase1(small_config)


def test_a_mistyped_data_set_leaves_no_run_folder(small_config):
    with pytest.raises(errors.UsageError, match="/nowhere is neither a folder nor"):
        phase1(small_config.replace(dataset="/nowhere"))
    assert not small_config.run_dir.exists()


@pytest.mark.usefixtures("instant_training")
@pytest.mark.parametrize(
    "best_epoch, deleted",
    [
        (1, "checkpoints"),
        pytest.param(1, "checkpoints/*/0*", marks=pytest.mark.thorough),
        pytest.param(3, "checkpoints", marks=pytest.mark.thorough),
    ],
)
def test_best_weights_are_not_overwritten_after_the_checkpoints_are_deleted(
    small_config, monkeypatch, best_epoch, deleted
):
    instant.validation_losses(monkeypatch, [0.3, 0.2, 0.1] if best_epoch == 3 else [0.1, 0.2, 0.3])
    config = small_config.replace(epochs=(3, 1))
    phase1(config)
    best = best_weights.find(small_config.run_dir / "best", phases.PHASE1)
    assert best.epoch == best_epoch
    before = best.weights.stat()
    for path in small_config.run_dir.glob(deleted):
        shutil.rmtree(path)
    with pytest.raises(errors.UsageError, match="there is no checkpoint to continue from"):
        phase1(config)
    assert best.weights.stat() == before


@pytest.mark.thorough
def test_a_run_killed_before_its_first_checkpoint_starts_again(trained, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self):
        raise Killed

    killed = trained.replace(run="killed")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", die)
        with pytest.raises(Killed):
            phase1(killed)
    assert best_weights.find(killed.run_dir / "best", phases.PHASE1).epoch == 1
    phase1(killed)
    for a, b in zip(
        weights_of_best(trained, phases.PHASE1),
        weights_of_best(killed, phases.PHASE1),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("instant_training")
def test_weights_that_could_not_be_saved_are_not_reported_as_best(
    small_config, monkeypatch, capsys
):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save_weights", full)
    phase1(small_config.replace(on_save_failure="continue"))
    output = capsys.readouterr().out
    assert "warning: cannot save to" in output and "best so far" not in output


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_float16_with_nans_stops_after_a_step_at_the_lowest_loss_scale(small_config, monkeypatch):
    """The loss is finite and no gradient is: skipping steps for ever would train nothing."""
    make, scales = steps.make_train_step, []

    def make_overflowing(state, *arguments):
        step = make(state, *arguments)

        def overflow(batch):
            scales.append(float(state.loss_scale.scale.numpy()))
            fatal = tf.cast(state.loss_scale.is_at_minimum, tf.float32)  # before the step
            sums, _ = step(batch)
            state.loss_scale.update(tf.constant(False))
            return sums, fatal

        return overflow

    monkeypatch.setattr(steps, "make_train_step", make_overflowing)
    with pytest.raises(errors.RunError, match="at the lowest loss scale of float16"):
        phase1(small_config.replace(precision="float16", epochs=(30, 1), feature_cache="off"))
    assert scales == [2.0**power for power in range(15, -1, -1)]


@pytest.mark.thorough
def test_a_non_finite_validation_loss_stops_the_run(small_config):
    config = small_config.replace(
        epochs=(1, 1), samples_per_epoch=(4, 2), learning_rate=(1e38, 1e-4)
    )
    with pytest.raises(errors.RunError, match="validation loss after epoch 1 of phase1"):
        phase1(config)
    assert not list(small_config.run_dir.rglob("*.index"))


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_an_epoch_that_an_earlier_process_trained_is_shown_without_a_rate(
    small_config, monkeypatch, capsys
):
    def stopped(*_, **__):
        raise errors.Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(errors.Stopped):
        patch.setattr(predictions_lib.Evaluator, "predict", stopped)
        phase1(small_config)
    phase1(small_config.replace(epochs=(1, 1)))
    lines = [line for line in capsys.readouterr().out.splitlines() if "train loss" in line]
    assert len(lines) == 1 and "images/s" not in lines[0]


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_phase2_reports_newer_weights_of_phase1(trained, monkeypatch, capsys):
    phase2(trained.replace(epochs=(2, 1)))
    monkeypatch.setattr(phases.Phase, "is_better", lambda *_: True)
    phase1(trained.replace(epochs=(3, 1)))
    assert "has found better weights" not in capsys.readouterr().out
    (weights,) = (trained.run_dir / "best").glob("phase1-epoch*.weights.h5")
    weights.unlink()  # phase 2 has started and does not need it any more
    phase2(trained.replace(epochs=(3, 1)))  # it has nothing to train and reports them all the same
    assert "phase 1 has found better weights, phase1-epoch" in capsys.readouterr().out


def peak_memory_of_a_run(settings, answer):
    network_lib.build = small_network.small_build  # in this process
    phase1(settings)
    answer.put(memory.peak())


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Held in memory, the inputs of 900 more images would be 1.3 GB.

    The smaller run is long enough for the allocator's own growth, 0.2 GB, to have ended.
    """
    peaks = []
    for per_class in (100, 400):
        root = tmp_path / str(per_class)
        helpers.write_classes(root / "train", per_class, seed=1)
        helpers.write_classes(root / "val", per_class, seed=2)
        settings = config_lib.Config.of(
            dataset=str(root),
            runs_dir=str(tmp_path / "runs"),
            run=str(per_class),
            xception_weights="none",
            epochs=(2, 2),
            batch_size=(4, 4),
        )
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        process = context.Process(target=peak_memory_of_a_run, args=(settings, answer))
        process.start()
        peaks.append(answer.get(timeout=250))
        process.join()
    assert peaks[1] - peaks[0] < 150e6, peaks
