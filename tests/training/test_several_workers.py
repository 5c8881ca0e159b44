"""Training by two workers in processes of their own: it equals two replicas of one process."""

import os
import re
import signal
import subprocess
import time

import pytest
import tensorflow as tf

from cnnrnn import phases
from cnnrnn.commands import cluster
from cnnrnn.runs import run_folder
from cnnrnn.system import scheduler
from tests import helpers

# Full precision: rounding to bfloat16 multiplies the last digits in which sums differ.
FLAGS = ("--precision=float32", "--checkpoint_minutes=1e-9")


def run(settings, *words):
    environment = os.environ | {"PYTHONPATH": str(helpers.REPOSITORY), "PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        [*helpers.SMALL_PROGRAM, *words, *settings.to_flags(), *FLAGS],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def variables(settings, phase):
    """The last checkpoint of a phase, by name."""
    folder = run_folder.RunFolder(settings.run_dir).checkpoints(phase)
    last = max(path for path in folder.iterdir() if path.name.isdigit())
    reader = tf.train.load_checkpoint(str(last / "variables"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith("_")
    }


@pytest.mark.slow
def test_two_workers_train_as_two_replicas(small_config):
    apart = small_config.replace(run="apart", batch_size=(8, 8))
    together = small_config.replace(run="together", batch_size=(8, 8))
    for settings, words in ((apart, ["cluster", "train", "--workers=2"]), (together, ["train"])):
        more = [] if settings is apart else ["--logical_cpus=2"]
        ended = run(settings, *words, *more)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    for phase, tolerance in ((phases.PHASE1, 1e-6), (phases.PHASE2, 1e-3)):
        expected = variables(together, phase)
        for name, value in variables(apart, phase).items():
            assert value == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
    # Only the chief has written.
    assert not list(apart.run_dir.parent.glob("**/.worker*"))
    assert (apart.run_dir / "evaluation" / "report.html").exists()


@pytest.mark.slow
def test_all_stop_at_one_step_if_one_worker_is_stopped(small_config):
    settings = small_config.replace(
        epochs=(100_000, 1),
        batch_size=(8, 8),
        dataset="digits",  # which is not prepared yet: in a cache that both use
        train_per_class=4,
        validation_per_class=2,
    )
    log = settings.run_dir.parent.with_name("log")
    environment = os.environ | {"PYTHONPATH": str(helpers.REPOSITORY), "PYTHONUNBUFFERED": "1"}
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*helpers.SMALL_PROGRAM, "cluster", "phase1", "--workers=2", *settings.to_flags()],
            stdout=file, stderr=file, env=environment,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while "phase1 epoch 2/" not in log.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        started = re.search(f"{cluster.PROCESSES}([0-9 ]+)", log.read_text())
        os.kill(int(started[1].split()[1]), signal.SIGTERM)  # not the chief
        code, output = process.wait(60), log.read_text()
    finally:
        process.kill()
    assert code == 143, output
    assert "lost contact" not in output
    saved = run_folder.RunFolder(settings.run_dir).checkpoints(phases.PHASE1)
    assert len([path for path in saved.iterdir() if path.name.isdigit()]) == 2


@pytest.mark.slow
def test_all_end_if_the_run_was_started_with_other_flags(trained):
    ended = run(trained.replace(learning_rate=(0.5, 0.5)), "cluster", "phase1", "--workers=2")
    output = ended.stdout + ended.stderr
    assert ended.returncode == 2, output
    assert "--learning_rate" in output and "worker 0 has refused the settings" in output
    assert "lost contact" not in output


@pytest.mark.slow
def test_a_worker_with_other_flags_is_named(small_config):
    """Each worker by itself, as a scheduler starts them."""
    addresses = scheduler.local_addresses(2)
    processes = []
    for index in range(2):
        environment = os.environ | {
            "PYTHONPATH": str(helpers.REPOSITORY),
            scheduler.TF_CONFIG: scheduler.tf_config(addresses, index),
        }
        settings = small_config.replace(label_smoothing=0.1 * index)
        processes.append(
            subprocess.Popen(
                [*helpers.SMALL_PROGRAM, "phase1", *settings.to_flags()],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 2, output
        assert "worker 1 has other flags than worker 0, the chief" in output
    assert not settings.run_dir.exists()
