"""`reproduce`: its comparison succeeds, and it can fail."""

import json
import shutil

import keras
import pytest
import tensorflow as tf

from cnnrnn import config, errors, phases
from cnnrnn.commands import reproduce, train
from cnnrnn.models import cnn_branch
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.system import checksummed
from tests import helpers

pytestmark = pytest.mark.usefixtures("no_pythonpath")


@pytest.fixture(autouse=True)
def no_xception(monkeypatch):
    """The CNN of which `reproduce` reads the origin of the weights is not built at full size."""
    monkeypatch.setattr(cnn_branch, "build", lambda image, **_: keras.Model(image, image))


def beside(settings):
    """The settings of a call of `reproduce` that finds runs by name."""
    return config.Config.of(runs_dir=settings.run.runs_dir)


@pytest.mark.usefixtures("small_network")
@pytest.mark.thorough
def test_a_reproduced_run_has_the_same_weights_to_the_bit(evaluated, capsys):
    trained = evaluated
    train.train((phases.PHASE2,), trained)
    reproduce.run([trained.run.name], beside(trained), helpers.SMALL_PROGRAM)
    output = capsys.readouterr().out
    for phase in phases.BY_NAME:
        assert f"{phase}, differences from the recorded environment: none" in output
        assert f"{phase}: the weights are identical" in output
    assert trained.run_dir.with_name("test-reproduced").joinpath("results.json").exists()
    assert output.endswith(f"verdict: {trained.run_dir} was reproduced bit for bit\n")
    reproduce.run([trained.run.name], beside(trained), ("true",))
    output = capsys.readouterr().out
    assert "compared without training them again" in output
    assert "bit for bit (at least in part by an earlier call, in " in output


def test_all_phases_and_the_evaluation_of_a_run_are_repeated(evaluated, monkeypatch, capsys):
    """Phase 2 is that of the new run, whose weights are compared."""
    folder = run_folder.RunFolder(evaluated.run_dir)
    record = checksummed.read_json(folder.best / "phase1.json")
    checksummed.write_json(folder.best / "phase2.json", record)
    for name in ("config.json", "manifest.json"):
        record = json.loads((folder.root / name).read_text())
        weights = best_weights.find(folder.best, phases.PHASE1).weights.name
        phase2 = record["phase1"] | {"started_from": f"{weights} (epoch 2)", "first_sample": 32}
        (folder.root / name).write_text(json.dumps(record | {"phase2": phase2}))
    started = []

    def run(program, arguments):
        started.append(arguments[0])
        assert f"--run={evaluated.run.name}-reproduced" in arguments
        again = folder.root.with_name(f"{evaluated.run.name}-reproduced")
        shutil.copytree(folder.root, again, dirs_exist_ok=True)

    monkeypatch.setattr(reproduce.child_process, "run", run)
    reproduce.run([evaluated.run.name], beside(evaluated))
    assert started == ["phase1", "phase2", "evaluate"]
    assert "phase2: the weights are identical" in capsys.readouterr().out


def test_the_new_run_can_be_named_and_other_flags_are_refused(trained):
    settings, run = beside(trained), trained.run_dir
    with pytest.raises(errors.RunError, match=r"`phase1 .*--run=again.*` ended with exit code 1"):
        reproduce.run([str(run)], settings.replace(run="again"), ("false",))
    with pytest.raises(errors.UsageError, match="--run=.* is the run itself"):
        reproduce.run([str(run)], settings.replace(run=run.name), ("false",))
    with pytest.raises(errors.UsageError, match="--seed cannot be combined with reproduce"):
        reproduce.run([str(run)], settings.replace(seed=3), ("false",))


def test_a_phase_that_has_not_ended_is_not_reproduced(trained):
    path = trained.run_dir / "config.json"
    record = json.loads(path.read_text())
    record["phase1"]["epochs"] = [trained.training.epochs[0] + 3, 1]
    path.write_text(json.dumps(record))
    with pytest.raises(errors.UsageError, match="phase1 of .* has been trained for . of . epochs"):
        reproduce.run([str(trained.run_dir)], beside(trained), ("false",))


def test_a_phase_whose_initial_weights_were_replaced_is_not_reproduced(trained):
    path = trained.run_dir / "manifest.json"
    record = json.loads(path.read_text())
    record["phase2"] = record["phase1"] | {"started_from": "phase1-epoch0099.weights.h5 (epoch 99)"}
    path.write_text(json.dumps(record))
    best = trained.run_dir / "best"
    record = checksummed.read_json(best / "phase1.json")
    checksummed.write_json(best / "phase2.json", record)
    path = trained.run_dir / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"phase2": record["phase1"]}))
    with pytest.raises(errors.UsageError, match="phase2 of .* later training has replaced"):
        reproduce.run([str(trained.run_dir)], beside(trained), ("false",))


@pytest.mark.parametrize("gpus, deterministic", [([], False), (["a GPU"], True)])
def test_on_gpus_operations_are_deterministic(trained, monkeypatch, gpus, deterministic):
    """On a CPU the setting has no effect, and a reproduction by an earlier version resumes."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    folder = run_folder.RunFolder(trained.run_dir)
    settings = reproduce._settings(folder, phases.PHASE1, trained.run_dir.with_name("other"))
    assert settings.run.deterministic is deterministic


def test_a_new_network_starts_at_the_first_sample_whatever_its_rnn_saw(trained, tmp_path):
    folder = run_folder.RunFolder(trained.run_dir)
    other = shutil.copytree(folder.root, tmp_path / "other")
    settings = trained.replace(rnn_weights=str(other))
    weights = best_weights.find(folder.best, phases.PHASE1).weights.name
    described = {"started_from": f"ImageNet; RNN: {weights} (epoch 2 of phase1)"}
    reproduce._check_start(folder, phases.PHASE1, settings, described)
    with pytest.raises(errors.UsageError, match="which later training has replaced"):
        reproduce._check_start(folder, phases.PHASE1, settings, {"started_from": "another"})
    settings = trained.replace(init_from=str(other))
    with pytest.raises(errors.UsageError, match="at another position in the order of the images"):
        reproduce._check_start(folder, phases.PHASE1, settings, described)


@pytest.mark.parametrize("name", ["epochs", "patience"])
def test_another_run_is_not_trained_further(trained, name):
    other = shutil.copytree(trained.run_dir, trained.run_dir.with_name("other"))
    record = json.loads((other / "config.json").read_text())
    record["phase1"][name] = [1, 1]
    (other / "config.json").write_text(json.dumps(record))
    with pytest.raises(errors.UsageError, match=f"other is another run: .* --{name}=1, .* name by"):
        reproduce.run([trained.run.name], beside(trained).replace(run="other"), ("false",))


def test_an_earlier_reproduction_of_more_epochs_is_not_compared(trained):
    """As of a run of the same name that was deleted and trained again."""
    earlier = trained.run_dir.with_name(f"{trained.run.name}-reproduced")
    shutil.copytree(trained.run_dir, earlier)
    record = json.loads((earlier / "config.json").read_text())
    record["phase1"]["epochs"] = [trained.training.epochs[0] + 3, 1]
    (earlier / "config.json").write_text(json.dumps(record))
    with pytest.raises(errors.UsageError, match="-reproduced is another run: its phase1 was"):
        reproduce.run([trained.run.name], beside(trained), ("false",))
    record["phase1"]["epochs"] = [1, 1]  # is trained further
    (earlier / "config.json").write_text(json.dumps(record))
    with pytest.raises(errors.RunError, match="ended with exit code 1"):
        reproduce.run([trained.run.name], beside(trained), ("false",))


def test_a_phase_that_time_may_have_ended_is_not_reproduced(trained):
    path = trained.run_dir / "config.json"
    record = json.loads(path.read_text())
    record["phase1"]["max_minutes"] = [60.0, 0.0]
    path.write_text(json.dumps(record))
    with pytest.raises(errors.UsageError, match="phase1 of .* may have been ended by --max_min"):
        reproduce.run([str(trained.run_dir)], beside(trained), ("false",))


def test_weights_within_an_epoch_are_not_reproduced(trained):
    """--max_minutes ended the phase there, and it was continued without a limit."""
    (path,) = (trained.run_dir / "best").glob("phase1-epoch*.weights.h5")
    partial = path.with_name(path.name.replace(".weights", "-step000001.weights"))
    path.rename(partial)
    record = trained.run_dir / "best" / "phase1.json"
    checksummed.write_json(record, checksummed.read_json(record) | {"weights": partial.name})
    with pytest.raises(errors.UsageError, match="phase1 of .* may have been ended by --max_min"):
        reproduce.run([str(trained.run_dir)], beside(trained), ("false",))


def test_a_run_of_several_workers_is_reproduced_by_one_process(trained):
    path = trained.run_dir / "config.json"
    record = json.loads(path.read_text())
    record["phase1"]["strategy"] = "multiworker"
    path.write_text(json.dumps(record))
    folder = run_folder.RunFolder(trained.run_dir)
    settings = reproduce._settings(folder, phases.PHASE1, trained.run_dir.with_name("other"))
    assert settings.run.strategy == "auto"


def test_differences_of_the_machine_and_of_the_weights_are_reported(trained, capsys):
    root = trained.run_dir
    for name, change in (
        ("manifest.json", lambda m: m["phase1"]["packages"].update(keras="3.0.0")),
        ("config.json", lambda c: c["phase1"].update(seed=5)),
    ):
        record = json.loads((root / name).read_text())
        change(record)
        (root / name).write_text(json.dumps(record))
    # Stands in for the second training, with other weights.
    shutil.copytree(root, root.with_name(f"{root.name}-reproduced"))
    path = root.with_name(f"{root.name}-reproduced") / "best" / "phase1.json"
    checksummed.write_json(path, checksummed.read_json(path) | {"sha256": "other"})
    with pytest.raises(errors.RunError, match="not reproduced bit for bit: phase1"):
        reproduce.run([root.name], beside(trained), ("true",))
    output = capsys.readouterr().out
    assert "packages.keras: 3.0.0 then, 3.15" in output
    assert "seed: 0 then, 5 now" in output


def test_a_run_without_a_cnn_needs_no_weights_of_it(trained):
    settings = trained.replace(fusion="rnn", xception_weights="/no/such/file")
    folder = run_folder.RunFolder(trained.run_dir)
    assert reproduce._today(folder, phases.PHASE1, settings)["xception_weights"] is None


def test_a_damaged_record_is_reported_by_its_name(trained):
    contents = ("", "{", "[]", "{}", '{"phase1": 3}', '{"phase1": {"epochs": "many"}}')
    for name in ("manifest.json", "config.json"):
        path = trained.run_dir / name
        before = path.read_text()
        for content in contents[: -1 if name == "manifest.json" else None]:
            path.write_text(content)
            with pytest.raises((errors.UsageError, errors.RunError), match=name):
                reproduce.run([trained.run.name], beside(trained), helpers.SMALL_PROGRAM)
        path.write_text(before)


def test_anything_but_one_run_is_refused():
    with pytest.raises(errors.UsageError, match="expected one run: reproduce RUN"):
        reproduce.run([], config.Config())
