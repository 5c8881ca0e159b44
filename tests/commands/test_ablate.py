"""`ablate`: trainings, resume, statistics and files."""

import csv
import dataclasses
import gc
import json
import math
import signal
import weakref

import numpy as np
import pytest

from cnnrnn import errors
from cnnrnn.commands import ablate, train
from cnnrnn.evaluation import ablation_report
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.training import train_state
from tests import pages


def training(top1, curve=((4, 0.5), (8, 0.75))):
    top1 = np.asarray(top1)
    return ablation_report.Training(
        top1=top1, top5=np.ones_like(top1), parameters=1000, images_per_second=9.5,
        curve=list(curve),
    )  # fmt: skip


def comparison(whole, cnn, gain=None, images=400):
    """The seeds of each network have these accuracies; images are right in order."""
    hits = {
        "product": whole, "cnn": cnn, "gain": gain or cnn, "rnn": [0.25] * len(cnn)
    }  # fmt: skip
    return ablation_report.Comparison(
        "cats, 400 validation images",
        "phase1",
        {
            fusion: [training(np.arange(images) < share * images) for share in shares]
            for fusion, shares in hits.items()
        },
    )


@pytest.mark.parametrize(
    "whole, cnn, gain, claim",
    [
        ([0.9, 0.9], [0.5, 0.5], None, "The RNN helps: "),
        ([0.9, 0.9], [0.5, 0.5], [0.9, 0.89], "Better than the CNN alone, but not"),
        ([0.5, 0.5], [0.9, 0.9], None, "The RNN does harm: "),
        ([0.5, 0.5], [0.9, 0.9], [0.5, 0.49], "Worse than the CNN alone, but not"),
        ([0.75, 0.74], [0.74, 0.75], None, "No benefit of the RNN is measurable: "),
        ([0.9, 0.9], [0.9, 0.89], [0.5, 0.5], "No benefit of the RNN over the CNN alone"),
        ([0.75, 0.74], [0.74, 0.75], [0.95, 0.95], "Not measurably better than the CNN alone, and"),
        ([0.7, 0.7], [0.4, 0.4], [0.95, 0.95], "Better than the CNN alone, but worse than with a"),
        ([0.7, 0.7], [0.95, 0.95], [0.4, 0.4], "Worse than the CNN alone, but better than with a"),
        ([0.9], [0.5], None, "The networks differ, but one seed does not show"),
        ([0.75], [0.74], None, "No benefit of the RNN is measurable: "),
    ],
)
def test_the_verdict(whole, cnn, gain, claim):
    found = ablation_report.verdict(comparison(whole, cnn, gain))
    assert found.startswith(claim) and "cats, 400 validation images" in found
    assert f"is {100 * np.mean(np.subtract(whole, cnn)):+.2f} (" in found
    assert ") against the CNN alone, and " in found


def test_in_a_sum_a_constant_is_no_gain_and_does_not_matter_for_the_verdict():
    product = comparison([0.9, 0.9], [0.5, 0.5], [0.9, 0.89])
    trainings = {"sum": product.trainings["product"]} | {
        control: product.trainings[control] for control in product.controls
    }
    found = ablation_report.verdict(dataclasses.replace(product, trainings=trainings))
    assert found.startswith("The RNN helps: ") and "against the CNN x constant gain" in found


def test_networks_that_were_still_improving_are_named():
    found = comparison([0.9, 0.9], [0.5, 0.5])
    assert not any("last epoch" in remark for remark in ablation_report.remarks(found))
    improving = dataclasses.replace(found.trainings["cnn"][0], best_is_last=True)
    found.trainings["cnn"][0] = improving
    assert ablation_report.verdict(found).startswith("The RNN helps within these epochs: ")
    note = ablation_report.remarks(found)[-1]
    assert note.startswith("The last epoch was the best of CNN alone with 1 of 2 seeds: with more")
    assert note.endswith("take little time (phase1 --fusion=cnn).")
    both = dataclasses.replace(found, trained_phases="phase1 and phase2")
    assert ablation_report.remarks(both)[-1].endswith("may be others.")
    found.trainings["cnn"][0] = dataclasses.replace(improving, best_is_last=False)
    found.trainings["rnn"][0] = improving
    assert ablation_report.remarks(found)[-1].endswith("may be others.")


@pytest.mark.parametrize(
    "whole, cnn, rnn, remark",
    [
        ([0.9, 0.9], [0.5, 0.5], [0.9, 0.89], "The whole network is not measurably better than"),
        ([0.8, 0.8], [0.5, 0.5], [0.95, 0.95], "The whole network is not measurably better than"),
        ([0.9, 0.9], [0.5, 0.5], [0.25, 0.25], None),
        ([0.9, 0.9], [0.9, 0.89], [0.9, 0.89], None),  # no benefit that could be misread
    ],
)
def test_an_rnn_that_is_as_good_alone_is_remarked(whole, cnn, rnn, remark):
    found = comparison(whole, cnn)
    top1 = [np.arange(400) < share * 400 for share in rnn]
    trainings = found.trainings | {"rnn": [training(values) for values in top1]}
    remarks = ablation_report.remarks(dataclasses.replace(found, trainings=trainings))
    assert [text[: len(remark or "")] for text in remarks] == ([remark] if remark else [])


def test_a_control_that_is_far_off_does_not_hide_the_other_differences(monkeypatch):
    charts = []
    monkeypatch.setattr(ablation_report.charts, "png", charts.append)
    ablation_report._forest(comparison([0.76, 0.75] * 3, [0.75, 0.76] * 3))
    (low, high), texts = charts[0].axes[0].get_xlim(), charts[0].axes[0].texts
    assert -20 < low < 0 < high < 20 and [text.get_text() for text in texts] == ["+50.5 \u25b6"]
    ablation_report._forest(comparison([0.6, 0.5] * 3, [0.3, 0.4] * 3))
    assert charts[1].axes[0].get_xlim()[1] > 30 and not charts[1].axes[0].texts
    # An RNN alone that is near, but varies much from seed to seed, is no arrow.
    near = comparison([0.76, 0.75] * 3, [0.75, 0.76] * 3)
    varying = [training(np.arange(400) < share * 400) for share in [0.4, 1.0, 0.9] * 2]
    trainings = near.trainings | {"rnn": varying}
    ablation_report._forest(dataclasses.replace(near, trainings=trainings))
    assert charts[2].axes[0].get_xlim()[1] < 20 and not charts[2].axes[0].texts


def test_curves_of_one_validation_are_not_drawn(tmp_path):
    found = comparison([0.9], [0.5])
    once = {
        fusion: [dataclasses.replace(one, curve=one.curve[:1]) for one in trainings]
        for fusion, trainings in found.trainings.items()
    }
    once_only = dataclasses.replace(found, trainings=once)
    assert ablation_report.remarks(once_only)[-1].startswith("Each network was validated once: ")
    for trainings, is_drawn in ((found.trainings, True), (once, False)):
        ablation_report.write(tmp_path, dataclasses.replace(found, trainings=trainings))
        assert ("<h2>Curves</h2>" in (tmp_path / "ablation.html").read_text()) == is_drawn
    assert b"\r" not in (tmp_path / "ablation.csv").read_bytes()


def test_the_table_has_each_network_and_its_difference():
    lines = ablation_report.table(comparison([0.9, 0.9], [0.5, 0.5])).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "CNN and RNN (product)", "CNN alone", "CNN x constant gain", "RNN alone",
    ]  # fmt: skip
    assert "90.00%" in lines[1] and "+40.00 (" in lines[2] and "+65.00 (" in lines[4]


def test_the_page_renders(browser, tmp_path):
    ablation_report.write(tmp_path, comparison([0.9, 0.9], [0.5, 0.5]))
    browser.get((tmp_path / "ablation.html").as_uri())
    pages.assert_renders(browser, tmp_path / "page.png")
    assert "The RNN helps" in browser.page_source


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
        return training([1, 0, 1, 1])

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
        return training([1, 0, 1, 1])

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
        return training([1, 0, 1, 1])

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


def test_notes_are_shown(tmp_path):
    noted = dataclasses.replace(comparison([0.9], [0.5]), notes=("Read this.",))
    unknown = dataclasses.replace(noted.trainings["rnn"][0], images_per_second=math.nan)
    noted.trainings["rnn"] = [unknown]
    ablation_report.write(tmp_path, noted)
    assert "<p>Read this.</p>" in (tmp_path / "ablation.html").read_text()
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert found["notes"] == ["Read this."]
    rates = {row["fusion"]: row["images_per_second"] for row in found["networks"]}
    assert rates["rnn"] is None and rates["cnn"] == 9.5
