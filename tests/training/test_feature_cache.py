"""The frozen CNN's features on disk."""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config, errors, phases
from cnnrnn.commands import train
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import image_check, input_pipeline, training_samples
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import augmentation as augmentation_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import devices
from cnnrnn.training import feature_cache, feature_rows, steps
from tests import (
    conftest,
    small_network,
    two_cpus,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


def make_small_chunks(patch):
    """Chunks of 7 images in batches of 4: the 18 training images make three, the last of 4."""
    patch.setattr(feature_rows, "CHUNK_SIZE", 7)
    patch.setattr(feature_cache, "_BATCH_PER_REPLICA", 4)


@pytest.fixture
def small_chunks(monkeypatch):
    make_small_chunks(monkeypatch)


@pytest.fixture(scope="module")
def network_of():
    """The small network by its seed and strategy; each is built once."""

    @functools.cache
    def build(seed, strategy):
        with strategy.scope():
            return small_network.small_build(3, seed=seed)

    return build


@pytest.fixture
def make_cache(one_replica, tmp_path, small_chunks, network_of):
    """Makes a cache of the small network."""

    def make(seed=0, resize_method="bilinear", strategy=one_replica):
        network = network_of(seed, strategy)
        preprocessing = views_lib.Preprocessing(resize_method)
        return feature_cache.FeatureCache(tmp_path / "features", network, strategy, preprocessing)

    return make


@pytest.fixture(scope="module")
def computed(shared_run, one_replica, network_of, tmp_path_factory):
    """The folder of a cache with the training images, and their features, (18, 6)."""
    root = tmp_path_factory.mktemp("computed")
    conftest.copy_cache(shared_run, root / "cache")
    folder = root / "features"
    with conftest.fast_runs(root / "cache"), pytest.MonkeyPatch.context() as patch:
        make_small_chunks(patch)
        cache = feature_cache.FeatureCache(
            folder, network_of(0, one_replica), one_replica, views_lib.Preprocessing()
        )
        return folder, features_of(cache, dataset_lib.load(shared_run).train)


@pytest.fixture
def cached(computed, tmp_path):
    """The cache of `make_cache` holds the features of the training images: (its chunks, these)."""
    folder, features = computed
    shutil.copytree(folder, tmp_path / "features")
    return chunks(tmp_path), features


def features_of(cache, split, indices=None, passes=2):
    indices = np.arange(len(split)) if indices is None else indices
    return cache.features(split, "train", passes).of(tf.constant(indices, tf.int64)).numpy()


def rows_of(split):
    return feature_rows.Rows(split, "train", None)


def folder_of(cache, split):
    return cache._folder(cache._key(rows_of(split)))


def chunks(tmp_path) -> list[pathlib.Path]:
    return sorted((tmp_path / "features").rglob("*.npy"))


def counting(monkeypatch):
    """Counts the images that are handed to the CNN."""
    counts = collections.Counter()
    original = input_pipeline.evaluation

    def evaluation(split, **kwargs):
        counts["images"] += len(split)
        return original(split, **kwargs)

    monkeypatch.setattr(input_pipeline, "evaluation", evaluation)
    return counts


def test_features_are_the_cnns_outputs_in_any_order(make_cache, data, tmp_path, capsys):
    cache = make_cache()
    indices = np.array([17, 0, 6, 7, 13, 14, 0])
    kept = features_of(cache, data.train, indices)
    assert [np.load(path).shape for path in chunks(tmp_path)] == [(7, 6), (7, 6), (4, 6)]
    images = next(
        input_pipeline.evaluation(
            data.train, batch_size=18, preprocessing=views_lib.Preprocessing()
        ).as_numpy_iterator()
    )["image"]
    np.testing.assert_allclose(kept, cache.network.cnn(images[indices], training=False), atol=1e-6)
    assert "computing 18 images of train," in capsys.readouterr().out
    (path,) = (tmp_path / "features").rglob("key.json")
    assert path.parent == folder_of(cache, data.train)
    key = json.loads(path.read_text())
    assert key["precision"] == "float32" and key["resize_method"] == "bilinear"


@pytest.mark.usefixtures("cached")
def test_any_number_of_chunks_needs_few_open_files(make_cache, data, monkeypatch):
    monkeypatch.setattr(feature_cache, "_OPEN_CHUNKS", 1)
    features = make_cache().features(data.train, "train", passes=2)  # three chunks
    opened, counts = features._opened, []
    monkeypatch.setattr(
        features,
        "_opened",
        lambda path: counts.append(len(os.listdir("/proc/self/fd"))) or opened(path),
    )
    rows = features.of(tf.constant([0, 17, 1, 8], tf.int64)).numpy()
    assert len(counts) == 4 and max(counts) <= counts[0] + 1
    np.testing.assert_array_equal(features.of(tf.constant([8], tf.int64)).numpy(), rows[3:])


def test_the_key_on_a_cpu_is_that_of_existing_caches(make_cache, data):
    """It may never change: the features of all earlier runs would be computed again."""
    cache = make_cache(seed=2)  # a network of its own, which is changed
    cnn = cache.network.cnn
    cnn.set_weights([np.full(weight.shape, 0.5, np.float32) for weight in cnn.get_weights()])
    infos = [image_check.ImageInfo(f"{number:064x}") for number in range(len(data.train))]
    key = cache._key(rows_of(dataclasses.replace(data.train, infos=np.array(infos))))
    folder = cache._folder(key)
    assert folder.name == "ede63e577197f7a9df4d1b98a180df79"


def test_the_key_on_gpus_knows_their_arithmetic(make_cache, data, monkeypatch):
    folders = set()
    for arithmetic in ({}, {"device": "GPU", "tf32": True}, {"device": "GPU", "tf32": False}):
        monkeypatch.setattr(devices, "arithmetic", lambda found=arithmetic: found)
        cache = make_cache()
        key = cache._key(rows_of(data.train))
        folders.add(folder_of(cache, data.train))
        assert {name: key[name] for name in ("device", "tf32") if name in key} == arithmetic
    assert len(folders) == 3


def test_a_second_run_computes_nothing(make_cache, data, monkeypatch, cached):
    counts = counting(monkeypatch)
    cache = make_cache()
    np.testing.assert_array_equal(features_of(cache, data.train, passes=0), cached[1])
    assert counts["images"] == 0


def test_a_killed_extraction_resumes(make_cache, data, monkeypatch, tmp_path, computed):
    original, written = feature_cache._write, []

    def dies_at_the_second(path, features):
        if written:
            raise KeyboardInterrupt
        original(path, features)
        written.append(path)

    monkeypatch.setattr(feature_cache, "_write", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        features_of(make_cache(), data.train)
    assert chunks(tmp_path) == written
    monkeypatch.setattr(feature_cache, "_write", original)
    counts = counting(monkeypatch)
    resumed = features_of(make_cache(), data.train)
    assert counts["images"] == 11
    np.testing.assert_array_equal(resumed, computed[1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def other_chunk(path):
    """Whole by its checksum, but of another shape."""
    np.save(path, np.zeros((2, 6), np.float32))
    feature_cache._write(path, np.zeros((2, 6), np.float32))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip, marks=pytest.mark.slow),  # another checksum, as if truncated
        truncate,
        pytest.param(empty, marks=pytest.mark.slow),
        other_chunk,
        pathlib.Path.unlink,
    ],
)
def test_a_damaged_chunk_is_reported_and_computed_again(
    make_cache, data, monkeypatch, capsys, cached, damage
):
    paths, right = cached
    damage(paths[1])
    counts = counting(monkeypatch)
    cache = make_cache()
    np.testing.assert_array_equal(features_of(cache, data.train), right)
    assert counts["images"] == 7
    assert re.search(r"00001\.npy .*; computing it again", capsys.readouterr().out)


def test_all_inputs_of_the_features_are_in_the_key(make_cache, data, monkeypatch):
    cache = make_cache()
    folders = [
        folder_of(cache, data.train),
        folder_of(make_cache(seed=1), data.train),
        folder_of(make_cache(resize_method="nearest"), data.train),
        folder_of(cache, data.validation),
        folder_of(cache, data.train.take(np.arange(17))),
    ]
    monkeypatch.setattr(views_lib, "RGB_VERSION", 99)
    folders.append(folder_of(make_cache(), data.train))
    assert len(set(folders)) == 6


def augmented(split, **settings):
    settings = {"augmentation": "standard", "cached_views": 2, **settings}
    return training_samples.TrainingSamples.of(
        config.Config.of(**settings), split, train_cnn=False, dropout_width=6
    )


@pytest.mark.thorough
def test_features_of_views_are_those_of_the_images_in_training(make_cache, data, capsys):
    cache, samples = make_cache(), augmented(data.train)
    features = cache.features(data.train, "train", 3, samples)
    kept, plain = (
        next(
            input_pipeline.training(
                data.train, samples, batch_size=18 * 3, start=0, features=source
            ).as_numpy_iterator()
        )
        for source in (features, None)
    )
    expected = cache.network.cnn(plain["image"], training=False)
    np.testing.assert_allclose(kept["features"], expected, atol=1e-6)
    np.testing.assert_array_equal(kept["sequence"], plain["sequence"])
    assert len(np.unique(kept["features"], axis=0)) == 36
    assert "18 images of train in 2 views each," in capsys.readouterr().out


@pytest.mark.thorough
def test_a_bad_image_is_named_while_features_of_views_are_computed(make_cache, own_data):
    path = own_data.train.source._paths[9]
    pathlib.Path(path).write_bytes(b"not an image")
    with pytest.raises(errors.RunError, match=path):
        make_cache().features(own_data.train, "train", 3, augmented(own_data.train))


def test_all_that_determines_views_is_in_the_key(make_cache, data, monkeypatch):
    cache = make_cache()

    def folder(**settings):
        rows = feature_rows.Rows(data.train, "train", augmented(data.train, **settings))
        return cache._folder(cache._key(rows))

    folders = [
        folder_of(cache, data.train),
        folder(),
        folder(cached_views=3),
        folder(augmentation="flip"),
        folder(seed=1),
    ]
    monkeypatch.setattr(augmentation_lib, "VERSION", 99)
    folders.append(folder())
    assert len(set(folders)) == 6


def test_views_are_cached_if_there_are_as_many_passes(make_cache, data, tmp_path, capsys):
    cache = make_cache()
    assert cache.features(data.train, "train", 1.9, augmented(data.train)) is None
    assert "1.9 passes remain, and caching costs 2" in capsys.readouterr().out
    assert not chunks(tmp_path)
    assert cache.features(data.train, "train", 2, augmented(data.train)) is not None
    assert sum(len(np.load(path)) for path in chunks(tmp_path)) == 36
    assert cache.features(data.train, "train", 0.5, augmented(data.train)) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cached_views": 0}, "--augmentation=standard.*the CNN runs in every.*--cached_views=K"),
        ({"cached_views": 0, "mixup": 0.2}, "with --mixup or --cutmix .* the CNN runs in every"),
    ],
)
def test_what_cannot_be_cached_is_said(make_cache, data, tmp_path, capsys, settings, message):
    samples = augmented(data.train, **settings)
    assert make_cache().features(data.train, "train", 100, samples) is None
    assert re.search(message, capsys.readouterr().out)
    assert not chunks(tmp_path)


def test_two_replicas_compute_the_same_features_as_one(make_cache, data, two_replicas, computed):
    one = computed[1]
    two = features_of(make_cache(strategy=two_replicas), data.train)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_cache_that_does_not_pay_off_is_not_written(make_cache, data, tmp_path, capsys):
    cache = make_cache()
    assert cache.features(data.train, "train", 0.8) is None
    assert not cache.directory.exists()
    assert "not written for train: 0.8 passes remain, and caching costs one" in (
        capsys.readouterr().out
    )
    assert cache.features(data.train, "train", 0) is None
    assert not capsys.readouterr().out and not cache.directory.exists()


def test_an_epoch_over_all_images_is_one_pass_without_the_rest_of_a_batch():
    assert feature_cache.passes_over(steps=4, batch_size=4, images=18) == 1
    assert feature_cache.passes_over(steps=2, batch_size=4, images=16) == 0.5
    assert feature_cache.passes_over(steps=1, batch_size=32, images=18) == 1


def test_free_space_is_checked_before_computing(make_cache, data, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 900, 100))
    counts = counting(monkeypatch)
    with pytest.raises(errors.RunError, match="needs 0 MB.*--feature_cache=DIR"):
        make_cache().features(data.train, "train", 2)
    assert counts["images"] == 0


def test_a_folder_that_cannot_be_written_is_reported(make_cache, data, tmp_path):
    (tmp_path / "features").write_text("a file, not a folder")
    with pytest.raises(errors.RunError, match="cannot write the feature cache.*=off"):
        make_cache().features(data.train, "train", 2)


def test_a_bad_image_is_named_while_features_are_computed(make_cache, own_data):
    path = own_data.train.source._paths[9]
    pathlib.Path(path).write_bytes(b"not an image")
    with pytest.raises(errors.RunError, match=path):
        make_cache().features(own_data.train, "train", 2)


def test_running_out_of_memory_is_not_taken_for_a_bad_image(make_cache, data, monkeypatch):
    def exhausted(batch):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(steps, "make_feature_step", lambda *_: exhausted)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        make_cache().features(data.train, "train", 2)


def test_logits_with_and_without_the_cache_agree(make_cache, data, one_replica):
    """Not to the bit: the gray view is resized from the mean, not averaged from the resized."""
    cache = make_cache()
    evaluator = predictions_lib.Evaluator(
        steps.make_eval_step(cache.network, one_replica),
        one_replica,
        batch_size=4,
        preprocessing=views_lib.Preprocessing(),
    )
    plain, cached = (
        evaluator.predict(data.validation, label="test", features=features)
        for features in (None, cache.features(data.validation, "validation", 2))
    )
    np.testing.assert_allclose(plain.loss, cached.loss, atol=1e-5)
    np.testing.assert_allclose(plain.probability, cached.probability, atol=1e-5)
    np.testing.assert_array_equal(plain.top, cached.top)


def best_weights(settings):
    network = small_network.small_build(3)
    network.model.load_weights(next((settings.run_dir / "best").glob("phase1*.weights.h5")))
    return network.model.get_weights()


@pytest.mark.usefixtures("small_network")
@pytest.mark.thorough
def test_weights_trained_with_and_without_the_cache_agree(
    small_config, small_chunks, tmp_path, capsys
):
    settings = small_config.replace(epochs=(2, 1))
    on = settings.replace(run="on", feature_cache=str(tmp_path / "features"))
    off = settings.replace(run="off", feature_cache="off")
    for one in (on, off):
        train.train((phases.PHASE1,), one)
    assert len(chunks(tmp_path)) == 5
    for a, b in zip(best_weights(on), best_weights(off), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert "feature cache: computing 18 images of train" in capsys.readouterr().out


@pytest.mark.slow
def test_logits_of_the_real_network_with_and_without_the_cache_agree(images, one_replica, tmp_path):
    """Full size: Xception's features from disk, and the gray view made without the RGB view."""
    data = dataset_lib.load(config.Config.of(dataset=str(images)))
    with one_replica.scope():
        network = network_lib.build(3)
        phases.set_trainable(network, phases.PHASE1, config.Config())
    cache = feature_cache.FeatureCache(
        tmp_path / "features", network, one_replica, views_lib.Preprocessing()
    )
    kwargs = {"batch_size": 6, "preprocessing": views_lib.Preprocessing()}
    plain = next(iter(input_pipeline.evaluation(data.train, **kwargs)))
    cached = next(
        iter(
            input_pipeline.evaluation(
                data.train, **kwargs, features=cache.features(data.train, "train", 2)
            )
        )
    )
    logits = [tf.function(network.logits)(batch, False).numpy() for batch in (plain, cached)]
    difference = np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max()
    print(f"largest difference of a logit, relative to the largest logit: {difference:.1e}")
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4 * np.abs(logits[0]).max())
