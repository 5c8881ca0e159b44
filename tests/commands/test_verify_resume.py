"""`verify-resume`: it succeeds for exact resume, and it can fail."""

import fcntl
import random
import signal
import sys
import time

import pytest
import tensorflow as tf

from cnnrnn import config, errors, phases
from cnnrnn.commands import train, verify_resume
from cnnrnn.runs import best_weights, event_files
from cnnrnn.system import child_process
from cnnrnn.training import cost
from tests import helpers

pytestmark = pytest.mark.usefixtures("no_pythonpath")

DIGESTS = {"results": "a", "phase1 optimizer": "b"}


def test_each_difference_of_the_digests_is_reported(capsys):
    verify_resume._compare(DIGESTS, dict(DIGESTS))
    assert capsys.readouterr().out.count("identical") == 2
    for other in ({**DIGESTS, "results": "x"}, {"phase1 optimizer": "b"}, {**DIGESTS, "new": "c"}):
        with pytest.raises(errors.RunError, match="differs from the uninterrupted one: "):
            verify_resume._compare(DIGESTS, other)


@pytest.mark.parametrize("devices, sizes", [(1, (16, 4)), (3, (18, 6)), (8, (16, 8))])
def test_batches_can_be_shared_by_any_number_of_devices(devices, sizes):
    short = verify_resume._shortened(config.Config.of(logical_cpus=devices), [50] * 10)
    assert short.training.batch_size == sizes
    assert short.training.samples_per_epoch == (3 * sizes[0], 2 * sizes[1])
    assert short.run.deterministic


def test_a_recipe_with_parts_of_batches_and_a_warmup_is_shortened():
    settings = config.Config.of(
        accumulation_steps=(8, 40), schedule=("cosine", "constant"), warmup_epochs=(3, 0.2),
        logical_cpus=2,
    )  # fmt: skip
    short = verify_resume._shortened(settings, [90, 90])
    assert short.training.batch_size == (16, 80)
    assert short.optimization.warmup_epochs == (0.5, 0.2)
    images = 2 * short.data.train_per_class
    for phase in phases.BY_NAME.values():
        phases.schedule(phase, short, images)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_each_worker_has_pairs_of_images_to_mix(mixing):
    settings = config.Config.of(workers=5, **{mixing: 0.2})
    short = verify_resume._shortened(settings, [50] * 10)
    assert short.training.batch_size == (20, 10)
    settings = config.Config.of(workers=5, accumulation_steps=(1, 3), **{mixing: 0.2})
    assert verify_resume._shortened(settings, [50] * 10).training.batch_size == (20, 30)


@pytest.mark.parametrize("sizes", [[5, 5], [1, 1000], [7, 2, 1]])
def test_batches_are_no_larger_than_the_data_set(sizes):
    short = verify_resume._shortened(config.Config(), sizes)
    images = sum(min(size, short.data.train_per_class) for size in sizes)
    assert short.training.batch_size == (min(16, images), 4)
    for phase in phases.BY_NAME.values():
        phases.schedule(phase, short, images)


def test_a_run_that_fails_is_reported_with_its_last_message(images):
    failing = (sys.executable, "-c", "print('no disk'); raise SystemExit(1)")
    with pytest.raises(errors.RunError, match="exit code 1; its last message is: no disk"):
        verify_resume.run((), config.Config.of(dataset=str(images)), failing)


def test_the_default_program_is_found_without_pythonpath(tmp_path):
    """It gets as far as refusing a command, before it imports TensorFlow."""
    program = (*child_process.PROGRAM, "no-such-command")
    run = verify_resume.ShortRun(tmp_path / "short", config.Config(), program)
    with pytest.raises(errors.RunError, match="exit code 2; .*no-such-command"):
        run.run()


@pytest.mark.parametrize("given, used", [("off", "off"), ("auto", "FOLDER/features")])
def test_features_are_stored_beside_the_runs_unless_they_are_off(tmp_path, given, used):
    command = (sys.executable, "-c", "import sys; sys.exit(' '.join(sys.argv))")
    settings = config.Config.of(feature_cache=given)
    run = verify_resume.ShortRun(tmp_path / "run", settings, command)
    with pytest.raises(errors.RunError) as raised:
        run.run()
    assert f"--feature_cache={used.replace('FOLDER', str(tmp_path / 'run'))}" in str(raised.value)


def test_kills_are_counted_and_the_last_start_is_left_alone(tmp_path, monkeypatch, capsys):
    """A stand-in counts its starts; it writes config.json long before it trains."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, sys, time\n"
        "root = pathlib.Path(sys.argv[1]); (root / 'run').mkdir(exist_ok=True)\n"
        "starts = root / 'starts'\n"
        "count = int(starts.read_text()) + 1 if starts.exists() else 1\n"
        "starts.write_text(str(count))\n"
        "(root / 'run/config.json').write_text(str(count))\n"
        "time.sleep(1)\n"
        f"print('phase2: 9 {cost.PHASE_STARTS}')\n"
        "print('step', count, flush=True)\n"
        "time.sleep(60 if count <= 3 else 0)\n"
    )
    monkeypatch.setattr(verify_resume, "_KILLS_DURING_START", 0)
    folder = tmp_path / "killed"
    command = (sys.executable, str(program), str(folder))
    run = verify_resume.ShortRun(folder, config.Config(), command)
    durations = verify_resume.Durations(start=0.5, total=1.1)  # killed within 0.2 s of training
    assert run.run_with_kills(3, durations, random.Random(1)) == 3
    output = capsys.readouterr().out
    assert output.count("killed after") == 3 and output.count("at: step") == 3


@pytest.mark.thorough
@pytest.mark.usefixtures("instant_training")
def test_each_part_of_a_run_has_a_digest_of_its_own(small_config, small_network, monkeypatch):
    settings = small_config.replace(epochs=(1, 1), run="run")
    train.train((phases.PHASE1, phases.PHASE2), settings)
    (settings.run_dir / "results.json").write_text("{}")
    run = verify_resume.ShortRun(settings.run_dir.parent, settings, ())
    expected = run.digests()
    parts = ["best weights", "best figures", "last weights", "optimizer", "position"]
    parts += ["curves, train", "curves, validation"]
    names = {f"{phase} {part}" for phase in phases.BY_NAME for part in parts}
    assert expected.keys() == names | {"results"}
    assert run.digests() == expected

    def changed():
        found = run.digests()
        assert found.keys() == expected.keys()
        return {name.partition(" ")[2] for name in names if found[name] != expected[name]}

    load, scalars = tf.train.load_checkpoint, event_files.scalars
    for part, name in (
        ("model", "last weights"),
        ("optimizer", "optimizer"),
        ("epoch", "position"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(
                tf.train, "load_checkpoint", lambda path, part=part: OneChanged(load(path), part)
            )
            assert changed() == {name}
    with monkeypatch.context() as patch:
        patch.setattr(event_files, "scalars", lambda folder: [*scalars(folder), ("loss", 9, 1.0)])
        assert changed() == {"curves, train", "curves, validation"}
        patch.setattr(
            event_files, "scalars", lambda folder: [*scalars(folder), ("images_per_second", 9, 1.0)]
        )
        assert changed() == set()  # a speed differs each time
    path = best_weights.find(settings.run_dir / "best", phases.PHASE2).weights
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert changed() == {"best weights"}


class OneChanged:
    """A checkpoint in which one value of a part is another."""

    def __init__(self, reader, part):
        self._reader = reader
        keys = sorted(reader.get_variable_to_shape_map())
        self._changed = next(key for key in keys if key.split("/")[0] == part)

    def get_variable_to_shape_map(self):
        return self._reader.get_variable_to_shape_map()

    def get_tensor(self, key):
        value = self._reader.get_tensor(key)
        return value + 1 if key == self._changed else value


@pytest.mark.thorough
def test_a_stopped_cluster_leaves_no_workers_behind(tmp_path, monkeypatch):
    """Stand-ins for workers hold a lock while they run, in a step that outlasts the signal."""
    monkeypatch.setattr(verify_resume, "_SIGNAL_SECONDS", 3.0)
    worker = f"""
import fcntl, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = open({str(tmp_path / "lock")!r}, "w")
fcntl.flock(lock, fcntl.LOCK_SH)
print("in a step", flush=True)
time.sleep(30)
"""
    program = f"""
import sys
from cnnrnn import main
from cnnrnn.commands import cluster
worker = (sys.executable, "-c", {worker!r})
main._function = lambda word: lambda *command: cluster.run(*command, worker)
main.entry()
"""
    command = (sys.executable, "-c", program)
    run = verify_resume.ShortRun(tmp_path / "short", config.Config.of(workers=2), command)
    with pytest.raises(errors.Stopped), run._started() as process:
        while run._log.read_text().count("in a step") < 2:
            assert process.poll() is None
            time.sleep(0.05)
        raise errors.Stopped(signal.SIGTERM)
    ended = time.monotonic()
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # once no worker holds it
    assert time.monotonic() - ended < 20


@pytest.mark.slow
def test_a_killed_run_of_the_small_network_equals_an_uninterrupted_one(images, capsys):
    settings = config.Config.of(dataset=str(images), xception_weights="none", kills=6)
    verify_resume.run((), settings, helpers.SMALL_PROGRAM)
    output = capsys.readouterr().out
    assert "verdict: killed 6 times" in output and "DIFFERENT" not in output


@pytest.mark.slow
def test_a_run_that_resumes_wrongly_is_detected(images, tmp_path, monkeypatch):
    # Kills anywhere in the run: in the first sixth of so short a one, nothing is saved yet.
    monkeypatch.setattr(verify_resume, "_KILLS_PER_RUN", 1)
    forgetful = tmp_path / "forgetful.py"
    forgetful.write_text(
        "import sys\n"
        "from tests import small_network\n"
        "import numpy as np\n"
        "from cnnrnn import main\n"
        "from cnnrnn.models import network\n"
        "from cnnrnn.runs import checkpoints\n"
        "network.build = small_network.small_build\n"
        "restore = checkpoints.Checkpoints.restore\n"
        "def forget(self):\n"
        "    folder = restore(self)\n"
        "    for variable in self._checkpoint.optimizer.variables[2:]:\n"
        "        variable.assign(np.zeros(variable.shape))\n"
        "    return folder\n"
        "checkpoints.Checkpoints.restore = forget\n"
        "sys.exit(main.main(sys.argv))\n"
    )
    program = (sys.executable, "-P", str(forgetful))
    settings = config.Config.of(dataset=str(images), xception_weights="none", kills=8)
    with pytest.raises(errors.RunError, match="uninterrupted one: .*optimizer"):
        verify_resume.run((), settings, program)
