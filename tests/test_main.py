"""The command line as a user meets it: in a process of its own, on small images."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags

from cnnrnn import config as config_lib
from cnnrnn import errors, main
from cnnrnn.training import trainer

REPOSITORY = pathlib.Path(__file__).parent.parent


def run(*arguments, timeout=120, **environment):
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", "cnnrnn.main", *arguments],
        cwd=REPOSITORY,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Runs main in this process, with flags that can be parsed again and again."""

    def call(*arguments):
        monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
        config_lib.define_flags(flags.FLAGS)
        monkeypatch.setattr(config_lib, "from_flags", lambda: from_flags(flags.FLAGS))
        code = main.main(["cnnrnn", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    from_flags = config_lib.from_flags
    return call


def test_help_is_instant_and_lists_commands_and_flags():
    done = run("phase1", "--help", timeout=10)
    assert done.returncode == 0
    for word in main.COMMANDS:
        assert f"  {word}" in done.stdout
    assert "--samples_per_epoch" in done.stdout and "default: '30,30'" in done.stdout
    imported = run("--help", PYTHONVERBOSE="1", timeout=10).stderr
    assert "import 'tensorflow" not in imported


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fly"], "unknown command 'fly'"),
        (["phase1", "--epohcs=3"], "epohcs"),
        (["phase1", "--epochs=x"], "--epochs=x"),
        (["phase1", "--epochs=0"], "--epochs=0 is not valid"),
        (["phase1", "extra"], "Received: 'extra'"),
        (["--flagfile=/nowhere/flags.txt"], "/nowhere/flags.txt"),
        ([f"--flagfile={__file__}"], "flag"),
        (["phase1", "--dataset=/no/such/folder"], "/no/such/folder"),
        (["phase2", "--runs_dir=/tmp/no-such-runs"], "Run phase1 with the same flags first"),
        (["evaluate", "--runs_dir=/tmp/no-such-runs"], "no trained weights"),
        (["data", "fly"], "data restructure SRC DST"),
        (["phase1", "--archive=/nowhere.zip", "--dataset=tiny_imagenet_100"], "/nowhere.zip"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(in_process, tmp_path, arguments, message):
    if not any(argument.startswith("--runs_dir") for argument in arguments):
        arguments = [*arguments, f"--runs_dir={tmp_path}"]
    code, _, err = in_process(*arguments)
    assert code == 2
    assert err.startswith("cnnrnn: ") and message in err and "Traceback" not in err


def test_failures_are_one_sentence_and_exit_code_1(in_process, monkeypatch):
    exhausted = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")
    for error in (errors.RunError("no luck"), OSError(28, "No space left"), exhausted):

        def fail(command, config, error=error):
            raise error

        monkeypatch.setattr(trainer, "run", fail)
        code, _, err = in_process("phase1")
        assert code == 1 and err.startswith("cnnrnn: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize("signum, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_a_signal_says_how_to_go_on(in_process, monkeypatch, signum, code):
    def stop(command, config):
        raise errors.Stopped(signal.Signals[signum])

    monkeypatch.setattr(trainer, "run", stop)
    returned, _, err = in_process("train")
    assert returned == code and "resumes from its last checkpoint" in err and signum in err


def test_a_fault_of_the_program_shows_its_traceback(in_process, monkeypatch):
    def fault(command, config):
        raise ZeroDivisionError

    monkeypatch.setattr(trainer, "run", fault)
    with pytest.raises(ZeroDivisionError):
        in_process("train")


def test_no_command_is_the_whole_recipe_and_later_flags_win(in_process, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(trainer, "run", lambda command, config: seen.append((command, config)))
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text("--epochs=3,4\n--seed=5\n")
    assert in_process(f"--flagfile={flagfile}", "--epochs=9")[0] == 0
    command, config = seen[0]
    assert command == "train" and config.training.epochs == (9, 9) and config.run.seed == 5


def test_the_repositorys_flagfiles_are_valid(in_process, monkeypatch):
    seen = []
    monkeypatch.setattr(trainer, "run", lambda command, config: seen.append(config))
    files = [REPOSITORY / "flags.txt", *sorted((REPOSITORY / "configs").glob("*.txt"))]
    assert len(files) >= 2
    for path in files:
        assert in_process("train", f"--flagfile={path}")[0] == 0, path
    assert seen[0].data.dataset == "digits"


def test_an_unwritable_run_folder_is_refused_before_any_work(in_process, tmp_path, images):
    (tmp_path / "file").write_text("")
    code, _, err = in_process("phase1", f"--dataset={images}", f"--runs_dir={tmp_path}/file/x")
    assert code == 1 and "cannot write to the run folder" in err and "--runs_dir" in err


def test_a_flagfile_that_is_not_text_is_refused(in_process, tmp_path):
    (tmp_path / "flags.txt").write_bytes(b"--epochs=3\n\xff\xfe\n")
    code, _, err = in_process(f"--flagfile={tmp_path}/flags.txt")
    assert code == 2 and err.startswith("cnnrnn: ")


def test_another_keras_backend_does_not_matter(images):
    assert run("data", f"--dataset={images}", KERAS_BACKEND="jax").returncode == 0


def test_data_describes_a_folder(images):
    done = run("data", f"--dataset={images}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nor any of TensorFlow's start-up lines
    assert "3 classes, 18 training and 9 validation" in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines()[-3:]] == [
        "black",
        "gray",
        "white",
    ]


@pytest.mark.slow
def test_the_sample_at_full_size_through_the_command_line(tmp_path):
    """The real network and weights: phase 1, phase 2 on two replicas, evaluation."""
    common = ["--flagfile=flags.txt", f"--runs_dir={tmp_path}", "--train_per_class=7"]
    common += ["--validation_per_class=4", "--epochs=1"]
    for command in ("phase1", "phase2", "evaluate"):
        extra = ["--logical_cpus=2"] if command == "phase2" else []
        done = run(command, *common, *extra, timeout=900)
        assert done.returncode == 0, done.stderr
    assert "best weights of phase2 (epoch 1) on 40 validation images" in done.stdout
    assert (tmp_path / "sample" / "results.json").exists()
