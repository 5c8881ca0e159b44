"""`ablate`: trainings, resume, statistics and files."""

import csv
import gc
import json
import signal
import weakref

import numpy as np
import pytest

from cnnrnn import errors
from cnnrnn.commands import ablate, train
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.training import train_state
from tests.evaluation import comparisons


def test_a_control_is_no_network_to_compare_with(small_config):
    with pytest.raises(errors.UsageError, match="is a control"):
        ablate.run((), small_config.replace(fusion="gain"))


def test_each_network_has_a_folder_for_each_seed(small_config, one_replica):
    config = small_config.replace(seed=3, seeds=2)
    networks = ablate._networks(config, config.run_dir.with_name("test.ablation"))
    order = [(each.run.seed, each.network.fusion) for each in networks]
    assert order == [(seed, name) for seed in (3, 4) for name in ("product", *ablate.CONTROLS)]
    assert len({each.run_dir for each in networks}) == len(networks) == 8
    for each in networks[::4]:  # another seed gives other initial weights
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network_lib, "build", lambda *_, seed, **__: seed)
            seed = train_state.build_network(3, each, one_replica)
        assert seed == each.run.seed


@pytest.mark.usefixtures("instant_training")
def test_networks_are_trained_compared_and_not_trained_again(
    small_config, small_network, monkeypatch, capsys
):
    config = small_config.replace(epochs=(1, 1), seeds=1)
    monkeypatch.setattr(ablate, "CONTROLS", ("cnn", "gain"))
    root = config.run_dir.with_name("test.ablation")
    trained, real = [], train.train

    def counted(todo, settings, **keywords):
        if len(trained) == 2:
            trained.append("killed")
            raise errors.Stopped(signal.SIGTERM)
        trained.append(settings.run.name)
        return real(todo, settings, **keywords)

    monkeypatch.setattr(train, "train", counted)
    with pytest.raises(errors.Stopped):
        ablate.run((), config)
    ablate.run((), config)
    names = ["product-seed0", "cnn-seed0", "gain-seed0"]
    assert trained == [*names[:2], "killed", *names[2:]]
    first = json.loads((root / "ablation.json").read_text())
    output = capsys.readouterr().out
    assert first["verdict"] in output and "training 3 of 3: gain, seed 0" in output
    assert "next      ./run.sh" not in output

    ablate.run((), config)
    assert len(trained) == 4 and json.loads((root / "ablation.json").read_text()) == first
    with open(root / "ablation.csv", newline="") as file:
        rows = {row["fusion"]: row for row in csv.DictReader(file)}
    assert int(rows["cnn"]["parameters"]) < int(rows["gain"]["parameters"])
    assert int(rows["gain"]["parameters"]) < int(rows["product"]["parameters"])
    hits = np.loadtxt(root / "cnn-seed0" / "hits.csv", delimiter=",", skiprows=1)[:, 1]
    assert float(rows["cnn"]["top1"]) == pytest.approx(np.mean(hits))
    assert not (root / "cnn-seed0" / "checkpoints").exists()

    for changes, message in (
        ({"learning_rate": (0.1, 0.1)}, r"trained with --learning_rate \(phase1\): 0.001 \(now 0"),
        ({"epochs": (2, 2)}, r"trained with --epochs: \[1\] \(now \[2\]\)"),
        ({"trained_phases": "both"}, r"--trained_phases: phase1 \(now both\)"),
    ):
        with pytest.raises(errors.UsageError, match=message):
            ablate.run((), config.replace(**changes))


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_a_network_is_freed_before_the_next_one_is_built(small_config, small_network, monkeypatch):
    models, alive, build = [], [], network_lib.build

    def recorded(*arguments, **settings):
        alive.extend(model() for model in models)
        network = build(*arguments, **settings)
        models.append(weakref.ref(network.model))
        return network

    monkeypatch.setattr(network_lib, "build", recorded)
    monkeypatch.setattr(ablate, "CONTROLS", ("cnn",))
    gc.disable()  # it would run at some time
    try:
        ablate.run((), small_config.replace(epochs=(1, 1), seeds=1))
    finally:
        gc.enable()
    assert alive == [None]


@pytest.mark.usefixtures("instant_training")
def test_a_network_is_not_continued_with_another_budget(small_config, small_network, monkeypatch):
    """More epochs would continue a run, and fewer would end it: each network has the same."""
    config = small_config.replace(epochs=(3, 3), seeds=1)
    real = train.train

    def stopped(todo, settings, **keywords):
        real(todo, settings.replace(epochs=(1, 1)), **keywords)
        raise errors.Stopped(signal.SIGTERM)

    monkeypatch.setattr(train, "train", stopped)
    with pytest.raises(errors.Stopped):
        ablate.run((), config)
    with pytest.raises(errors.UsageError, match=r"--epochs: \[3\] \(now \[1\]\)"):
        ablate.run((), config.replace(epochs=(1, 1)))


@pytest.mark.usefixtures("instant_training")
@pytest.mark.thorough
def test_other_settings_of_a_control_are_found_before_any_training(
    small_config, small_network, monkeypatch
):
    config = small_config.replace(epochs=(1, 1), seeds=1)
    monkeypatch.setattr(ablate, "CONTROLS", ("cnn",))
    ablate.run((), config)
    monkeypatch.setattr(train, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(errors.UsageError, match="cnn-seed0 was trained with --epochs"):
        ablate.run((), config.replace(fusion="gated", epochs=(2, 2)))


def test_a_phase_that_was_trained_on_another_machine_is_noted(small_config, monkeypatch, capsys):
    def trained(own, *_):
        folder = run_folder.RunFolder(own.run_dir)
        folder.root.mkdir(parents=True)
        phase1 = "another" if own.network.fusion == "rnn" else "this"
        manifest = {"phase1": {"processor": phase1}, "phase2": {"processor": "this"}}
        (folder.root / "manifest.json").write_text(json.dumps(manifest))
        return comparisons.training([1, 0, 1, 1])

    monkeypatch.setattr(ablate, "_trained", trained)
    ablate.run((), small_config.replace(seeds=1, trained_phases="both"))
    assert "different machines: processor: this then, another now." in capsys.readouterr().out


def test_the_seeds_so_far_are_compared_before_the_last(small_config, monkeypatch):
    def trained(own, *_):
        if (own.run.seed, own.network.fusion) == (2, "rnn"):
            raise errors.Stopped(signal.SIGTERM)
        folder = run_folder.RunFolder(own.run_dir)
        folder.root.mkdir(parents=True)
        (folder.root / "manifest.json").write_text('{"phase1": {}}')
        return comparisons.training([1, 0, 1, 1])

    monkeypatch.setattr(ablate, "_trained", trained)
    with pytest.raises(errors.Stopped):
        ablate.run((), small_config.replace(seeds=3))
    root = small_config.run_dir.with_name("test.ablation")
    assert json.loads((root / "ablation.json").read_text())["seeds"] == 2


def test_networks_that_start_from_one_rnn_are_noted(small_config, trained, monkeypatch, capsys):
    def made(own, *_):
        folder = run_folder.RunFolder(own.run_dir)
        folder.root.mkdir(parents=True)
        (folder.root / "manifest.json").write_text('{"phase1": {}}')
        return comparisons.training([1, 0, 1, 1])

    monkeypatch.setattr(ablate, "_trained", made)
    ablate.run((), small_config.replace(seeds=1, run="new", rnn_weights=str(trained.run_dir)))
    assert "note: All seeds start from the same RNN" in capsys.readouterr().out


def test_weights_of_the_phase_before_are_not_scored_as_those_of_the_last(
    small_config, monkeypatch, tmp_path
):
    """As after --on_save_failure=continue, if the disk was full throughout phase 2."""
    monkeypatch.setattr(train, "train", lambda *_, **__: None)
    best = best_weights.Best(tmp_path / "weights", "0" * 64, (), "phase1", 1, None)
    monkeypatch.setattr(ablate.evaluate, "score_best", lambda *_: (best, None, None))
    with pytest.raises(errors.RunError, match="has no best weights of phase2"):
        ablate.run((), small_config.replace(seeds=1, trained_phases="both"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_minutes": (1.0, 1.0)}, "--max_minutes would end the networks after different"),
        ({"patience": (3, 3)}, "--patience would end the networks after different"),
        (
            {"init_from": "runs/other"},
            "--init_from cannot be combined with ablate: the weights of runs/other",
        ),
        ({"rnn_weights": "/nowhere"}, "there are no trained weights in /nowhere"),
    ],
)
def test_what_no_comparison_can_have_is_refused_at_once(
    small_config, monkeypatch, changes, message
):
    monkeypatch.setattr(ablate.dataset_lib, "load", lambda _: pytest.fail("images were checked"))
    with pytest.raises(errors.UsageError, match=message):
        ablate.run((), small_config.replace(**changes))
