"""The dry run of a phase, in this process."""

import pathlib
import time
import types

import pytest
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.settings import paths
from cnnrnn.system import devices, gpu_memory
from cnnrnn.training import cost, dry_run, feature_cache, steps
from tests import helpers
from tests.commands import preflight_stand_ins


@pytest.fixture
def measure(small_network, monkeypatch, one_replica):
    monkeypatch.setattr(feature_cache, "_BATCH_PER_REPLICA", 4)
    return dry_run.measure


def time_nothing(patch):
    """Every step and pipeline has the same rate, without being run."""
    patch.setattr(dry_run._DryRun, "_rate", lambda *_, **__: 10.0)


@pytest.mark.parametrize(
    "changes, expected, is_timed",
    [
        ({}, 18 + 9, True),
        ({"epochs": (1, 1)}, 18 + 9, False),  # evaluation and other runs can use them
        # only validation pays off
        ({"epochs": (2, 1), "samples_per_epoch": (4, 4)}, 9, False),
        ({"feature_cache": "off"}, None, False),
        ({"fusion": "rnn"}, None, True),  # there is no CNN
    ],
)
@pytest.mark.thorough
def test_features_are_timed_where_caching_pays_off(
    measure, small_config, monkeypatch, changes, expected, is_timed
):
    if not is_timed:
        time_nothing(monkeypatch)
    found = measure("phase1", small_config.replace(**changes))
    assert (found.features and found.features.images) == expected


def test_features_of_augmented_views_are_timed_with_the_augmentation(
    measure, small_config, monkeypatch
):
    timed = []
    monkeypatch.setattr(
        dry_run._DryRun,
        "_rate",
        lambda _, step, size, samples, cached: timed.append(samples.augmentation.policy) or 10.0,
    )
    config = small_config.replace(augmentation="standard", cached_views=2, epochs=(2, 2))
    assert measure("phase1", config).features.images == 9 + 2 * 18
    # Training, validation, and the features of validation and of training.
    assert timed == ["standard", "none", "none", "standard"]


def test_only_the_split_whose_features_pay_off_is_cached(
    measure, small_config, tmp_path, monkeypatch
):
    """Both splits come from one tree, so that they differ in their arrays alone."""
    time_nothing(monkeypatch)
    root = helpers.write_classes(tmp_path / "tree", 6)
    config = small_config.replace(
        dataset=str(root),
        validation_fraction=0.5,
        epochs=(3, 1),
        samples_per_epoch=(2, 2),
        batch_size=(2, 2),
    )
    assert measure("phase1", config).features.images == 9


def test_an_image_that_cannot_be_decoded_is_named(measure, own_images, images):
    path = next((images / "train").rglob("*.png"))
    path.write_bytes(b"no image")
    with pytest.raises(errors.UsageError, match=f"1 of 27 images .*{path}"):
        measure("phase2", own_images)


@pytest.mark.thorough
def test_an_error_of_a_step_is_not_taken_for_one_of_the_pipeline(
    measure, small_config, monkeypatch
):
    def fails(batch):
        raise tf.errors.InternalError(None, None, "a kernel failed")

    monkeypatch.setattr(steps, "make_train_step", lambda *_: fails)
    with pytest.raises(tf.errors.InternalError, match="a kernel failed"):
        measure("phase2", small_config)


@pytest.mark.thorough
def test_an_image_that_fails_in_the_pipeline_is_named(measure, own_images, monkeypatch):
    """It is damaged after the check."""
    load = dataset_lib.load

    def load_then_damage(config):
        data = load(config)
        for index in range(len(data.train)):
            pathlib.Path(data.train.path(index)).write_bytes(b"no image")
        return data

    monkeypatch.setattr(dataset_lib, "load", load_then_damage)
    with pytest.raises(errors.RunError, match="cannot decode .* has changed since"):
        measure("phase2", own_images)


def test_on_a_gpu_memory_is_that_of_the_gpu(measure, small_config, monkeypatch):
    monkeypatch.setattr(gpu_memory, "peak", lambda: 5 * 10**9)
    monkeypatch.setattr(gpu_memory, "total", lambda: 24 * 10**9)
    with monkeypatch.context() as patch:
        time_nothing(patch)
        assert not measure("phase2", small_config).on_gpu
        patch.setattr(dry_run, "devices_lib", on_a_gpu())
        found = measure("phase2", small_config)
        assert (found.on_gpu, found.peak, found.available) == (True, 5 * 10**9, 24 * 10**9)

    def exhausted(batch):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(dry_run, "devices_lib", on_a_gpu())
    monkeypatch.setattr(steps, "make_train_step", lambda *_: exhausted)
    with pytest.raises(cost.GpuMemoryError, match="OOM when allocating"):
        measure("phase2", small_config)


def on_a_gpu():
    """`devices` for the dry run alone: what it measures with runs on the CPU."""
    found = types.SimpleNamespace(**vars(devices))
    found.gpus = lambda: ["a GPU"]
    return found


@pytest.mark.thorough
def test_the_rate_is_that_of_the_input_pipeline_if_it_is_slower(measure, small_config, monkeypatch):
    """Batches wait while the first step compiles."""
    training = dry_run.input_pipeline.training

    def slow(*arguments, **settings):
        def wait(batch):
            waited = tf.py_function(lambda: time.sleep(0.05), [], [])
            with tf.control_dependencies([waited]):
                return tf.nest.map_structure(tf.identity, batch)

        batches = training(*arguments, **settings)
        return batches.map(wait).prefetch(2).with_options(dry_run.input_pipeline.options())

    monkeypatch.setattr(dry_run.input_pipeline, "training", slow)
    found = measure("phase2", small_config)
    assert found.training.rate <= found.batch_size / 0.05


def test_nothing_is_written(measure, small_config, tmp_path):
    folders = tmp_path, paths.cache_dir()
    before = [sorted(folder.rglob("*")) for folder in folders]
    found = measure("phase2", small_config)
    preflight_stand_ins.assert_measured(found)
    assert [sorted(folder.rglob("*")) for folder in folders] == before


def test_the_data_set_is_reported_for_phase1_only(measure, small_config, monkeypatch, capsys):
    time_nothing(monkeypatch)
    for phase, lines in (("phase1", 1), ("phase2", 0)):
        measure(phase, small_config.replace(feature_cache="off"))
        output = capsys.readouterr().out
        assert output.count("\ndata: ") == output.count("precision: ") == lines


@pytest.mark.parametrize(
    "sizes, computed, passes",
    [
        # 8 steps of 4 images: parts of 4, 2 and 6 of them are 1, 0.5 and 1.5 passes.
        ("160:0.5,299:0.5", {160: 18, 299: 18 + 9}, {160: True, 299: True}),
        ("160:0.25,299:0.75", {299: 18 + 9}, {160: False, 299: True}),
        ("160:0.75,299:0.25", {160: 18, 299: 9}, {160: True, 299: False}),
    ],
)
def test_features_pay_off_in_each_part_of_the_phase(
    measure, small_config, monkeypatch, sizes, computed, passes
):
    rates, parts = {160: 20.0, 299: 5.0}, {}

    def rate(self, step, batch_size, samples, *, cached):
        size = samples.preprocessing.image_size
        if step is train_step:
            parts[size] = cached
        return rates[size]

    train_step = object()
    monkeypatch.setattr(steps, "make_train_step", lambda *_: train_step)
    monkeypatch.setattr(dry_run._DryRun, "_rate", rate)
    found = measure("phase1", small_config.replace(cnn_image_size=sizes)).features
    assert parts == passes
    assert found.images == sum(computed.values())
    seconds = sum(images / rates[size] for size, images in computed.items())
    assert found.seconds == pytest.approx(seconds)


def test_class_weights_are_checked_and_used(measure, small_config, monkeypatch, tmp_path):
    path = tmp_path / "weights.json"
    path.write_text('{"no such class": 2}')
    with pytest.raises(errors.UsageError, match="there is no class 'no such class'"):
        measure("phase2", small_config.replace(class_weights=str(path)))
    path.write_text('{"gray": 2}')
    seen = []

    def make_train_step(state, strategy, global_batch, options):
        seen.append(options.loss.class_weights)
        raise StopIteration

    monkeypatch.setattr(steps, "make_train_step", make_train_step)
    with pytest.raises(StopIteration):
        measure("phase2", small_config.replace(class_weights=str(path)))
    assert sorted(seen[0]) == [1, 1, 2]


@pytest.mark.slow
def test_phase2_takes_the_estimated_memory(small_config):
    """The real network, in a process of its own as ./run.sh preflight does it."""
    from cnnrnn.commands import preflight

    settings = small_config.replace(batch_size=(4, 4), precision="float32")
    found = preflight.measure_in_child("phase2", settings)
    parameters = 20_861_480 + 48_627_712 + 33_562_624 + 3 * (2048 + 1)
    assert found.peak == pytest.approx(cost.phase2_memory(4, parameters, half=False), rel=0.12)
