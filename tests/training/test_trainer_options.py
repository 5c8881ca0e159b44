"""The training loop with its options: exact resume, replicas, image sizes, early stops."""

import functools
import gc
import json
import pathlib
import shutil
import signal
import types
import weakref

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors, phases, shapes
from cnnrnn.commands import evaluate, export, train
from cnnrnn.evaluation import predictions
from cnnrnn.export import loader
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, classifier, event_files, run_folder
from cnnrnn.training import steps, stopping, trainer, training_batches
from tests import (
    conftest,
    instant,
    small_network,
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("small_network")

# Every option of the trainer at once, in the two combinations that are possible.
CACHED = {
    "augmentation": "standard",  # "strong" takes long to trace
    "cached_views": 2,
    "label_smoothing": 0.1,
    "dropout": 0.3,
    "optimizer": ("adamw", "sgd"),
    "rnn_rate_factor": (0.5, 0.5),
    "schedule": ("cosine", "cosine"),
    "warmup_epochs": (0.5, 0.5),
    "clip_norm": 0.5,
    "accumulation_steps": (2, 2),
    "ema": 0.9,
    "cnn_image_size": "160:0.5,299:0.5",
    "eval_image_size": 224,
    "class_weights": "balanced",
    "sampling": "balanced",
}
MIXED = CACHED | {
    "cached_views": 0,
    "mixup": 0.4,
    "cutmix": 1.0,
    "optimizer": ("sgd", "adamw"),
    "schedule": ("onecycle", "onecycle"),
    "warmup_epochs": (0.0, 0.0),
    "layer_decay": 0.5,
    "unfreeze_from": "bn",
    "batchnorm_momentum": "auto",
}
OPTIONS = {"cached": CACHED, "mixed": MIXED}
PHASES = {"phase1": phases.PHASE1, "phase2": phases.PHASE2}


class Killed(BaseException):
    """The process was killed."""


def run(phase, config, strategy=None):
    train.train((phase,), config, strategy=strategy)


def results_of(config, phase):
    """Best weights, and the last checkpoint's variables."""
    folder = run_folder.RunFolder(config.run_dir)
    best = best_weights.find(folder.best, phase)
    last = max(folder.checkpoints(phase).glob("[0-9]*"))
    reader = tf.train.load_checkpoint(str(last / "variables"))
    variables = {
        key: reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if not key.startswith("_")
    }
    return best.sha256, variables


def losses_of(config, phase):
    """The training loss of each epoch in TensorBoard's files, with its step."""
    events = run_folder.RunFolder(config.run_dir).events(phase, "train")
    return [(step, value) for tag, step, value in event_files.scalars(events) if tag == "loss"]


@pytest.mark.thorough
def test_the_loop_takes_its_options(small_config, monkeypatch):
    """The other tests compare runs of the same options, which may lack some in the same way."""
    made = []

    def make_train_step(*arguments):
        def step(batch, *_):
            made.extend([*arguments, batch])
            raise errors.Stopped(signal.SIGTERM)

        return step

    monkeypatch.setattr(steps, "make_train_step", make_train_step)
    config = small_config.replace(**MIXED)
    with pytest.raises(errors.Stopped):
        run(phases.PHASE1, config)
    state, _, global_batch, options, batch = made
    assert global_batch == 4 and batch["image"].shape == (4, 160, 160, 3)
    assert {"share", "other_label", "dropout"} <= batch.keys()
    assert options.clip_norm == 0.5 and options.accumulation_steps == 2
    assert options.loss.label_smoothing == 0.1 and options.loss.class_weights is not None
    assert state.average is not None
    total = config.training.epochs[0] * (18 // 4)
    rates = []
    for step in (0, total // 4, total):  # of onecycle
        state.optimizer.iterations.assign(step)
        rates.append(float(state.optimizer.learning_rate))
    np.testing.assert_allclose(rates, np.array([0.04, 1, 0]) * 1e-3, atol=1e-9)


@pytest.fixture(scope="module")
def whole_run(shared_run, tmp_path_factory):
    """The settings of an uninterrupted run by its phase and options; equal ones train once."""

    @functools.cache
    def trained_with(phase, options, augmentation="standard"):
        settings = OPTIONS[options] | {"augmentation": augmentation, "batch_size": (4, 4)}
        root = tmp_path_factory.mktemp("whole")
        start = {"runs_dir": str(root / "runs"), "init_from": str(shared_run.run_dir)}
        config = shared_run.replace(**settings, **start, run="whole")
        with conftest.fast_runs(root / "cache"):
            run(PHASES[phase], config)
        return config

    return trained_with


@pytest.mark.parametrize(
    "phase, options, augmentation, kills",
    [
        ("phase1", "cached", "standard", (5,)),
        ("phase2", "mixed", "standard", (5,)),
        pytest.param("phase1", "cached", "strong", (1, 4, 7), marks=pytest.mark.slow),
        pytest.param("phase2", "mixed", "strong", (1, 4, 7), marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough
def test_a_killed_run_with_all_options_resumes_to_the_bit(
    phase, options, augmentation, kills, whole_run, small_config, monkeypatch
):
    config = whole_run(phase, options, augmentation)
    phase = PHASES[phase]
    killed = config.replace(run="killed", checkpoint_minutes=1e-9)  # after every step
    make, done = steps.make_train_step, []

    def make_that_dies(*arguments):
        step = make(*arguments)

        def counted(batch):
            if len(done) in kills:
                done.append(None)
                raise Killed
            done.append(batch)
            return step(batch)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(steps, "make_train_step", make_that_dies)
        for _ in kills:
            with pytest.raises(Killed):
                run(phase, killed)
    run(phase, killed)
    (expected_best, expected), (best, variables) = (results_of(c, phase) for c in (config, killed))
    assert expected_best == best and expected.keys() == variables.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(value, variables[key], err_msg=key)
    assert any("average_" in key for key in expected)
    losses, losses_killed = (losses_of(each, phase) for each in (config, killed))
    assert losses == losses_killed and len(losses) == 2


# The step on two replicas with all options is fast: test_step_options.
@pytest.mark.slow
@pytest.mark.parametrize("options", ["mixed", "cached"])
def test_two_replicas_with_all_options_equal_one(options, whole_run, small_config, two_replicas):
    alone = whole_run("phase2", options)
    together = alone.replace(run="two")
    run(phases.PHASE2, together, two_replicas)
    weights = []
    for config in (alone, together):
        best = best_weights.find(run_folder.RunFolder(config.run_dir).best, phases.PHASE2)
        model = small_network.small_build(3).model
        model.load_weights(best.weights)
        weights.append((best.epoch, model.get_weights()))
    assert weights[0][0] == weights[1][0]
    for one, two in zip(weights[0][1], weights[1][1], strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)


@pytest.mark.slow  # the default options are covered by tests of exports
def test_an_export_with_all_options_equals_the_evaluated_network(
    whole_run, small_config, monkeypatch
):
    whole = whole_run("phase2", "mixed")
    config = whole.replace(runs_dir=small_config.run.runs_dir)
    shutil.copytree(whole.run_dir, config.run_dir)
    evaluate.run((), config)
    results = json.loads((config.run_dir / "results.json").read_text())
    best = best_weights.latest(run_folder.RunFolder(config.run_dir).best)
    # The average of the weights was validated, and is what is kept and evaluated.
    assert results["validation"]["loss"] == pytest.approx(best.validation.loss, abs=1e-5)
    loaded = classifier.load(config.run_dir)
    assert loaded.preprocessing.image_size == 224
    monkeypatch.setattr(export.bundle.keras_and_litert, "litert", lambda *_: b"")
    export.run((), config)
    signature = loader.load(config.run_dir / "export").signatures["serving_default"]
    files = sorted(pathlib.Path(config.data.dataset, "val").rglob("*.png"))
    contents = [path.read_bytes() for path in files[:3]]
    outputs = signature(image_bytes=contents)
    for index, content in enumerate(contents):
        views = {name: view[None] for name, view in loaded.views(content).items()}
        expected = np.sort(loaded.probabilities(views).numpy()[0])[::-1]
        np.testing.assert_allclose(outputs["probabilities"][index], expected, atol=1e-5)


@pytest.mark.usefixtures("instant_steps")
@pytest.mark.thorough
def test_each_part_of_a_phase_trains_at_its_size(trained, monkeypatch):
    sizes = []
    make = steps.make_train_step

    def spy(*arguments):
        step = make(*arguments)
        return lambda batch: sizes.append(batch["image"].shape[1:3]) or step(batch)

    monkeypatch.setattr(steps, "make_train_step", spy)
    config = trained.replace(
        cnn_image_size="299/100:0.25,200:0.5,299:0.25", batch_size=(4, 4), feature_cache="off"
    )
    run(phases.PHASE2, config)
    assert sizes == [(100, 100)] * 2 + [(200, 200)] * 4 + [(299, 299)] * 2


@pytest.mark.thorough
def test_phase1_caches_features_at_its_own_image_size(trained, tmp_path, capsys):
    config = trained.replace(
        run="small", cnn_image_size="160", feature_cache=str(tmp_path / "features")
    )
    run(phases.PHASE1, config)
    keys = [json.loads(p.read_text()) for p in (tmp_path / "features").rglob("key.json")]
    sizes = {key["split"]: key["image_size"] for key in keys}
    assert sizes == {"train": 160, "validation": shapes.IMAGE_SIZE}
    assert "feature cache: computing 18 images of train" in capsys.readouterr().out


@pytest.mark.thorough
def test_nothing_of_phase1_is_held_when_phase2_starts(small_config, monkeypatch):
    trainers, alive = [], []

    class Recorded(trainer.PhaseTrainer):
        def __init__(self, *arguments):
            alive.extend(reference() for reference in trainers)
            super().__init__(*arguments)
            trainers.append(weakref.ref(self))

    monkeypatch.setattr(trainer, "PhaseTrainer", Recorded)
    gc.disable()  # memory is needed at once
    try:
        train.train(tuple(PHASES.values()), small_config)
    finally:
        gc.enable()
    assert alive == [None]


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_the_speed_is_reported_once_for_each_size(trained, capsys):
    config = trained.replace(cnn_image_size="299/80:0.5,100:0.5", batch_size=(4, 2))
    run(phases.PHASE2, config)
    assert capsys.readouterr().out.count("images/s, peak memory") == 2


@pytest.mark.usefixtures("instant_training")
def test_a_complete_phase_with_a_falling_rate_is_not_continued(trained, capsys):
    config = trained.replace(run="cosine", schedule=("cosine", "cosine"))
    for _ in range(2):
        run(phases.PHASE1, config)
    assert "give --init_from=" in capsys.readouterr().out
    with pytest.raises(errors.UsageError, match="--epochs=2 .now 3."):
        run(phases.PHASE1, config.replace(epochs=(3, 3)))


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_patience_ends_a_phase_without_progress_and_more_continues_it(trained, capsys):
    config = trained.replace(run="patient", epochs=(5, 5), patience=(2, 2))
    message = "phase1 has had no better validation result for 2 epochs"
    for _ in range(2):  # the second time nothing is trained
        run(phases.PHASE1, config)
        assert f"{message} (--patience=2) after 3 of 5 epochs" in capsys.readouterr().out
    assert last_position(config) == (3, 0)
    run(phases.PHASE1, config.replace(patience=(0, 0)))
    assert last_position(config) == (5, 0)


@pytest.mark.usefixtures("instant_training")
def test_patience_counts_results_that_could_not_be_saved(trained, monkeypatch):
    """All are better than the one that was saved, but those after epoch 4 not than the fourth."""
    config = trained.replace(run="full", epochs=(9, 9), patience=(2, 2), on_save_failure="continue")
    instant.validation_losses(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.3, 0.25])
    save = best_weights.save

    def save_first(directory, phase, model, class_names, epoch, *arguments, **keywords):
        if epoch > 1:
            raise errors.RunError("the disk is full")
        save(directory, phase, model, class_names, epoch, *arguments, **keywords)

    monkeypatch.setattr(best_weights, "save", save_first)
    run(phases.PHASE1, config)
    assert last_position(config) == (6, 0)
    assert best_weights.find(config.run_dir / "best", phases.PHASE1).epoch == 1


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_a_phase_stopped_in_its_last_validation_is_validated_by_the_next_start(
    trained, monkeypatch
):
    config = trained.replace(run="timed", max_minutes=(1.0, 1.0), init_from=str(trained.run_dir))
    clock = iter(range(0, 10**6, 10))  # ten seconds between two steps
    times = types.SimpleNamespace(monotonic=lambda: next(clock), process_time=lambda: 0.0)
    monkeypatch.setattr(stopping, "time", times)

    def stopped(*_, **__):
        raise errors.Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(predictions.Evaluator, "predict", stopped)
        with pytest.raises(errors.Stopped):
            run(phases.PHASE2, config)
    best = run_folder.RunFolder(config.run_dir).best
    assert best_weights.find(best, phases.PHASE2) is None
    for _ in range(2):  # the second time nothing is trained
        run(phases.PHASE2, config)
        assert best_weights.find(best, phases.PHASE2).epoch == 1
        assert last_position(config, phases.PHASE2) == (0, 7)


@pytest.mark.parametrize(
    "settings, complete_reports",
    [
        pytest.param({}, True, marks=pytest.mark.slow),  # it explains mistakes, too
        ({"mixup": 0.4, "augmentation": "flip"}, False),
    ],
    ids=["complete report", "mixed"],
)
@pytest.mark.thorough
def test_nothing_of_a_cnn_that_the_network_lacks_is_computed(
    small_config, tmp_path, monkeypatch, settings
):
    seen = set()
    logits = network_lib.Network.logits
    monkeypatch.setattr(
        network_lib.Network,
        "logits",
        lambda self, batch, training: seen.update(batch) or logits(self, batch, training),
    )
    cache = tmp_path / "own"
    config = small_config.replace(fusion="rnn", feature_cache=str(cache), **settings)
    train.run((), config)
    assert "features" in seen and "image" not in seen
    assert not cache.exists()
    results = json.loads((config.run_dir / "results.json").read_text())
    assert results["branches"]["cnn"] is None


@pytest.mark.thorough
def test_a_phase_out_of_time_is_saved_and_evaluated_and_resumes(trained, monkeypatch, capsys):
    config = trained.replace(run="timed", max_minutes=(1.0, 1.0), batch_size=(2, 2))
    clock = iter(range(0, 10**6, 10))  # ten seconds between two steps
    times = types.SimpleNamespace(monotonic=lambda: next(clock), process_time=lambda: 0.0)
    monkeypatch.setattr(stopping, "time", times)
    for _ in range(2):  # the second time nothing is trained
        run(phases.PHASE1, config)
        output = capsys.readouterr().out
        assert "phase1 has used its --max_minutes=1 after 0 of 2 epochs and 6 steps" in output
    assert last_position(config) == (0, 6)
    assert best_weights.find(run_folder.RunFolder(config.run_dir).best, phases.PHASE1).epoch == 1
    run(phases.PHASE1, config.replace(max_minutes=(0.0, 0.0)))
    whole = config.replace(run="whole", max_minutes=(0.0, 0.0))
    run(phases.PHASE1, whole)
    (_, continued), (_, expected) = (results_of(c, phases.PHASE1) for c in (config, whole))
    for key in expected:
        if key.startswith(("model", "optimizer")):
            np.testing.assert_array_equal(continued[key], expected[key], err_msg=key)
    # The validation within the first epoch was of weights that were kept.
    events = run_folder.RunFolder(config.run_dir).events(phases.PHASE1, "validation")
    points = [step for tag, step, _ in event_files.scalars(events) if tag == "loss"]
    assert points[0] == 6 and points == sorted(set(points)) and len(points) == 3


@pytest.mark.usefixtures("instant_training")
def test_the_time_of_features_is_not_that_of_the_phase(trained, monkeypatch):
    sizes = {"cnn_image_size": "80:0.5,100:0.5", "feature_cache": "off"}
    config = trained.replace(run="timed", max_minutes=(1.0, 1.0), **sizes)
    clock = [0.0]
    times = types.SimpleNamespace(monotonic=lambda: clock[0], process_time=lambda: clock[0])
    monkeypatch.setattr(stopping, "time", times)
    begin_part, begun = training_batches.TrainingBatches.begin_part, []

    def computes_features(self):
        clock[0] += 3600.0
        begun.append(clock[0])
        begin_part(self)

    monkeypatch.setattr(training_batches.TrainingBatches, "begin_part", computes_features)
    run(phases.PHASE1, config)
    assert len(begun) == 2 and last_position(config) == (2, 0)


def last_position(config, phase=phases.PHASE1):
    """(epoch, step) of the last checkpoint."""
    _, variables = results_of(config, phase)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    return int(variables[f"epoch{suffix}"]), int(variables[f"step{suffix}"])
