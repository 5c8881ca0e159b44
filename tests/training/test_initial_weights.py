"""Initial weights of the RNN branch from another run. test_trainer has those of a whole network."""

import json
import shutil
import signal

import numpy as np
import pytest

from cnnrnn import errors, phases
from cnnrnn.commands import train
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.training import initial_weights, steps
from tests import small_network

pytestmark = pytest.mark.usefixtures("small_network")

NORMALIZED = {"rnn_input": "standardized", "rnn_layer_norm": True}


def phase1(config):
    train.train((phases.PHASE1,), config)


def trained_rnn(config, **variant):
    """Weights of the RNN in a run's best weights, in a network of their own."""
    best = best_weights.latest(run_folder.RunFolder(config.run_dir).best)
    network = small_network.small_build(3, seed=9, variant=network_lib.Variant(**variant))
    network.model.load_weights(best.weights)
    return network.rnn.get_weights()


def random_build(*arguments, **keywords):
    """The small network with random values in all weights."""
    network = small_network.small_build(*arguments, **keywords)
    rng = np.random.default_rng(1)
    network.model.set_weights([rng.normal(size=w.shape) for w in network.model.get_weights()])
    return network


@pytest.mark.usefixtures("instant_training")
@pytest.mark.parametrize("normalized", [{}, NORMALIZED], ids=["raw", "normalized"])
def test_the_rnn_starts_from_a_run_of_it_alone_and_the_rest_does_not(
    small_config, monkeypatch, normalized
):
    source = small_config.replace(run="alone", fusion="rnn", epochs=(1, 1), **normalized)
    monkeypatch.setattr(network_lib, "build", random_build)
    phase1(source)
    settings = small_config.replace(rnn_weights=str(source.run_dir), **normalized)
    variant = network_lib.Variant(**normalized)
    # Other classes: the head is not loaded.
    network, fresh = (small_network.small_build(5, variant=variant) for _ in range(2))
    folder = run_folder.RunFolder(settings.run_dir)
    initial = initial_weights.load(phases.PHASE1, settings, folder, network, tuple("abcde"))
    loaded = network.rnn.get_weights()
    assert len(loaded) == (8 if normalized else 6)
    expected = trained_rnn(source, fusion="rnn", **normalized)
    for value, trained, random in zip(loaded, expected, fresh.rnn.get_weights(), strict=True):
        np.testing.assert_array_equal(value, trained)
        assert not np.array_equal(value, random)
    for part in ("cnn", "fusion"):
        weights = (getattr(each, part).get_weights() for each in (network, fresh))
        for value, random in zip(*weights, strict=True):
            np.testing.assert_array_equal(value, random)
    assert f"; RNN: {source.run_dir}/best/phase1-epoch0001" in initial.description
    assert initial.xception is not None


def test_a_network_without_a_cnn_needs_no_weights_of_it(small_config):
    config = small_config.replace(xception_weights="/no/such/file", fusion="rnn")
    network = small_network.small_build(3, variant=network_lib.Variant("rnn"))
    folder = run_folder.RunFolder(config.run_dir)
    initial = initial_weights.load(phases.PHASE1, config, folder, network, tuple("abc"))
    assert initial == initial_weights.InitialWeights("no CNN")


@pytest.mark.thorough
def test_it_is_recorded_and_only_the_start_needs_it(trained, monkeypatch):
    source = trained.run_dir.with_name("source")
    shutil.copytree(trained.run_dir, source)
    config = trained.replace(run="new", rnn_weights=str(source), checkpoint_minutes=1e-9)
    whole = config.replace(run="whole")
    phase1(whole)
    make = steps.make_train_step

    def killed_in_the_third_step(*arguments):
        step, calls = make(*arguments), []

        def counted(batch):
            calls.append(None)
            if len(calls) == 3:
                raise errors.Stopped(signal.SIGKILL)
            return step(batch)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(steps, "make_train_step", killed_in_the_third_step)
        with pytest.raises(errors.Stopped):
            phase1(config)
    shutil.rmtree(source)
    phase1(config)
    for one, two in zip(trained_rnn(whole), trained_rnn(config), strict=True):
        np.testing.assert_array_equal(one, two)
    recorded = json.loads((config.run_dir / "config.json").read_text())
    assert recorded["phase1"]["rnn_weights"] == str(source)
    manifest = json.loads((config.run_dir / "manifest.json").read_text())
    assert f"RNN: {source}" in manifest["phase1"]["started_from"]
    with pytest.raises(errors.UsageError, match="--rnn_weights=.*source .now ''"):
        phase1(config.replace(rnn_weights=""))


def test_init_from_comes_first(trained):
    config = trained.replace(run="new", init_from=str(trained.run_dir), rnn_weights="/nowhere")
    network = small_network.small_build(3)
    folder = run_folder.RunFolder(config.run_dir)
    names = best_weights.latest(trained.run_dir / "best").class_names
    initial_weights.load(phases.PHASE1, config, folder, network, names)
    for value, expected in zip(network.rnn.get_weights(), trained_rnn(trained), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_run_that_has_lost_its_manifest_is_noted_where_it_matters(trained, capsys):
    folder = run_folder.RunFolder(trained.run_dir)
    (folder.root / "manifest.json").unlink()
    initial_weights.warn_of_newer_phase1(folder)
    assert capsys.readouterr().out == ""
    names = best_weights.latest(folder.best).class_names
    network = small_network.small_build(len(names))
    started = initial_weights.load(phases.PHASE2, trained, folder, network, names)
    assert started.first_sample == 0
    note = "do not tell how many images phase1 was trained on, so phase2 starts with the first ones"
    assert note in capsys.readouterr().out


def test_a_run_without_such_an_rnn_is_refused_before_any_work(trained, monkeypatch):
    monkeypatch.setattr(train.dataset_lib, "load", lambda _: pytest.fail("read the images"))
    controls = trained.run_dir.with_name("cnn")
    shutil.copytree(trained.run_dir, controls)
    recorded = json.loads((controls / "config.json").read_text())
    recorded["phase1"]["fusion"] = "cnn"
    (controls / "config.json").write_text(json.dumps(recorded))
    config = trained.replace(run="new", rnn_weights=str(trained.run_dir))
    for change, message in (
        ({"rnn_weights": "/nowhere"}, "no trained weights in /nowhere/best.*--rnn_weights"),
        ({"rnn_weights": str(controls)}, "was trained with --fusion=cnn, which leaves out the RNN"),
        ({"rnn_layer_norm": True}, "--rnn_input=raw --rnn_layer_norm=False: give these flags"),
        ({"rnn_input": "standardized"}, "--rnn_input=raw --rnn_layer_norm=False: give these"),
    ):
        with pytest.raises(errors.UsageError, match=message):
            phase1(config.replace(**change))
    assert not config.run_dir.exists()


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_weights_that_were_trained_on_other_images_are_noted(trained, capsys):
    """Another fold: its training images include validation images of this run."""
    note = "was trained on other images, or on another split of these"
    phase1(trained.replace(run="same", init_from=str(trained.run_dir)))
    assert note not in capsys.readouterr().out
    fold = {"fold": "1/3", "feature_cache": "off"}
    phase1(trained.replace(run="fold", init_from=str(trained.run_dir), **fold))
    assert f"note: --init_from={trained.run_dir} {note}" in capsys.readouterr().out
    pretrained = trained.replace(run="rnn", rnn_weights=str(trained.run_dir), **fold)
    train.train((phases.PHASE1, phases.PHASE2), pretrained)
    assert capsys.readouterr().out.count(note) == 1
