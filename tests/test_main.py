"""The command line: commands, flags, exit codes and messages."""

import ast
import errno
import inspect
import os
import platform
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf

import cnnrnn
from cnnrnn import config as config_lib
from cnnrnn import errors, main
from cnnrnn.commands import train
from cnnrnn.system import devices, quiet_tensorflow, stop_signals
from tests import helpers

USE_NO_GPU = {"data", "doctor", "export", "reproduce", "verify-resume"}
WITHOUT_TENSORFLOW = {"check-gpu", "cluster", "preflight"}
OPTIONS = {
    *("arguments", "cpu", "parent", "no-tensorflow", "resumes", "recorded", "workers", "-"),
}


def run(*arguments, timeout=120, **environment):
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", "cnnrnn.main", *arguments],
        cwd=helpers.REPOSITORY,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.parametrize(
    "machine, before, after",
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_onednn_is_turned_on_unless_the_variable_is_set(monkeypatch, machine, before, after):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", before or "")
    if before is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    runpy.run_path(cnnrnn.__file__)
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == after


@pytest.mark.parametrize("arguments", [["--help"], ["help"]])
def test_help_lists_the_commands_and_all_flags(in_process, arguments):
    code, out, _ = in_process(*arguments)
    assert code == 0
    for word, command in main.commands().items():
        assert f"  {word:<15}{command.help}\n" in out
    assert "--port" in out and "--samples_per_epoch" in out and "default: '30,30'" in out


def test_the_help_of_a_command_shows_the_flags_of_its_groups(in_process):
    _, out, _ = in_process("phase1", "--help")
    assert out.startswith(f"phase1: {main.commands()['phase1'].help}\n")
    assert "--epochs" in out and "--runs_dir" in out and "--dataset" in out
    assert "--port" not in out and "--kills" not in out and "--top" not in out


@pytest.mark.parametrize("word", sorted(main.commands()))
def test_the_help_of_a_command_shows_two_examples_that_are_accepted(in_process, monkeypatch, word):
    called = []
    monkeypatch.setattr(main, "_dispatch", lambda *command: called.append(command) or 0)
    monkeypatch.chdir(helpers.REPOSITORY)  # flagfiles are relative to it
    _, out, _ = in_process(word, "--help")
    assert len(main.examples(word)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(main.text_lib, "program", lambda: "cnnrnn")
        installed = main.examples(word)
    assert installed and not any("configs/" in arguments for arguments, _ in installed)
    for arguments, what in main.examples(word):
        assert f"./run.sh {word} {arguments}".rstrip() + f"\n      {what}\n" in out
        code, _, err = in_process(word, *shlex.split(arguments))
        assert (code, err) == (0, "")
        assert called.pop()[0] == word
    assert "\nFlags (" in out


@pytest.mark.parametrize("word", sorted(main.commands()))
def test_processes_that_only_start_others_or_work_on_the_cpu_see_no_gpu(
    in_process, monkeypatch, word
):
    calls = []
    for function in ((quiet_tensorflow, "import_tensorflow"), (devices, "configure")):
        monkeypatch.setattr(*function, lambda **kwargs: calls.append(kwargs))
    monkeypatch.setattr(main, "_function", lambda _: lambda *_: None)
    in_process(word, "--deterministic")
    uses_gpus = {"uses_gpus": word not in USE_NO_GPU}  # otherwise a missing one is no warning
    expected = [uses_gpus, {**uses_gpus, "deterministic": True}]
    assert calls == (expected if word not in WITHOUT_TENSORFLOW else [])


def test_help_does_not_import_tensorflow():
    done = run("phase1", "--help", PYTHONVERBOSE="1", timeout=60)
    assert done.returncode == 0 and "import 'tensorflow" not in done.stderr


@pytest.mark.parametrize("word", main.commands())
def test_every_command_has_a_function_of_arguments_and_config(word):
    parameters = list(inspect.signature(main._function(main.commands()[word])).parameters)
    assert parameters[:2] == ["arguments", "config"]
    assert set(main.commands()[word].options) <= OPTIONS


def test_a_command_lists_all_groups_that_its_module_reads():
    reads = {
        "run_dir": {"run", "data"},
        "model_dir": {"prediction", "run", "data"},
        "evaluation_name": {"evaluation", "data"},
        "to_json": set(config_lib.RECORDED),
    }
    for word, command in main.commands().items():
        path = helpers.REPOSITORY / "cnnrnn" / "commands" / f"{command.module}.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "config"
                and node.attr not in ("replace", "to_flags")
            ):
                assert reads.get(node.attr, {node.attr}) <= set(command.groups), word


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
        (["phase2"], "Run phase1 with the same flags first"),
        (["evaluate"], "no trained weights"),
        (["evaluate", "--model=runs/other"], "--model is for predict, explain, export, serve: "),
        (["train", "--test_dataset=digits"], "--test_dataset is for evaluate: leave it out"),
        (["train", "--phase=phase1"], "--phase is for find-lr: leave it out with train"),
        (["data", "fly"], "data restructure SRC DST"),
        (["phase1", "--archive=/nowhere.zip", "--dataset=tiny_imagenet_100"], "/nowhere.zip"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(in_process, tmp_path, arguments, message):
    code, _, err = in_process(*arguments, f"--runs_dir={tmp_path}")
    assert code == 2
    assert err.startswith("cnnrnn: ") and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("fails, message", [(False, "No space left"), (True, "out of luck")])
def test_output_that_cannot_be_written_is_one_sentence(fails, message):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        ended = _with_output_to(full, fails)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("cnnrnn: ") and message in line


@pytest.mark.parametrize("arguments, is_written", [("cluster train", False), ("predict x", True)])
def test_only_messages_of_training_may_be_lost(in_process, monkeypatch, arguments, is_written):
    def lose_a_message(arguments, config):
        with tempfile.TemporaryFile("w") as log, stop_signals.tolerating_lost_output(log):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(main, "_function", lambda _: lose_a_message)
    assert in_process(*arguments.split())[0] == is_written


_FULL = """
import resource, signal, sys
from cnnrnn import main
from cnnrnn.system import console, stop_signals
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def write(text):  # like messages and progress
    with stop_signals.tolerating_lost_output(sys.stdout):
        print(text, flush=True)
def command(arguments, config):
    limit(0)  # as on a full disk
    for number in range(20):
        write(f"{number}" * 1000)
    limit(100)
    write("there is room again")
    limit(0)
    console.print_summary("the end")
main._function = lambda _: command
main.entry()
"""


@pytest.mark.thorough
def test_a_log_on_a_full_disk_neither_ends_nor_fails_training(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", _FULL, "phase1"]
    with open(tmp_path / "log", "w") as log:
        ended = subprocess.run(
            command, cwd=helpers.REPOSITORY, env=environment, stdout=log, stderr=subprocess.PIPE
        )
    assert ended.returncode == 0 and b"cnnrnn: " not in ended.stderr
    assert (tmp_path / "log").read_text() == "there is room again\n"


@pytest.mark.parametrize("closed, error", [(">&-", "unknown command"), (">&- 2>&-", "")])
def test_closed_streams_are_no_bug(closed, error):
    command = ["sh", "-c", f'"$0" -m cnnrnn.main fly {closed}', sys.executable]
    ended = subprocess.run(command, cwd=helpers.REPOSITORY, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == bool(error) and error in ended.stderr


def test_output_into_a_pipe_that_was_closed_is_no_error_message():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        ended = _with_output_to(closed, fails=False)
    assert (ended.returncode, ended.stderr) == (1, "")


_PRINTS = """
from cnnrnn import errors, main
from cnnrnn.system import deletion

def run(argv):
    print("still in the buffer of standard output")
    if {fails}:
        raise errors.RunError("out of luck")
    return 0

main._run = run
deletion.exit_process(main.main(["cnnrnn"]))
"""


def _with_output_to(file, fails):
    """A command that prints a line and then succeeds or fails."""
    return subprocess.run(
        [sys.executable, "-c", _PRINTS.format(fails=fails)],
        cwd=helpers.REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=file,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_failures_are_one_sentence_and_exit_code_1(in_process, monkeypatch):
    exhausted = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")
    for error in (errors.RunError("no luck"), OSError(28, "No space left"), exhausted):

        def fail(arguments, config, error=error):
            raise error

        monkeypatch.setattr(train, "phase1", fail)
        code, _, err = in_process("phase1")
        assert code == 1 and err.startswith("cnnrnn: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "reason", ["No space left on device", "Disk quota exceeded", "Too many open files"]
)
def test_other_limits_than_memory_are_not_called_out_of_memory(in_process, monkeypatch, reason):
    def fail(arguments, config):
        raise tf.errors.ResourceExhaustedError(None, None, f"runs/x; {reason}")

    monkeypatch.setattr(train, "phase1", fail)
    code, _, err = in_process("phase1")
    assert (code, err) == (1, f"cnnrnn: runs/x; {reason}\n")


@pytest.mark.parametrize("signum, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_a_signal_is_reported_with_how_to_resume(in_process, monkeypatch, signum, code):
    def stop(arguments, config):
        raise errors.Stopped(signal.Signals[signum])

    monkeypatch.setattr(train, "run", stop)
    returned, _, err = in_process("train")
    assert (
        returned == code and "training continues from its last checkpoint" in err and signum in err
    )


def test_a_bug_shows_its_traceback(in_process, monkeypatch):
    def fail(arguments, config):
        raise ZeroDivisionError

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(ZeroDivisionError):
        in_process("train")


def test_without_a_command_train_runs_and_later_flags_override(in_process, monkeypatch, tmp_path):
    received = []
    monkeypatch.setattr(train, "run", lambda arguments, config: received.append(config))
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text("--epochs=3,4\n--seed=5\n")
    assert in_process(f"--flagfile={flagfile}", "--epochs=9")[0] == 0
    assert received[0].training.epochs == (9, 9) and received[0].run.seed == 5


def test_the_repositorys_flagfiles_are_valid(in_process, monkeypatch):
    received = []
    monkeypatch.setattr(train, "run", lambda arguments, config: received.append(config))
    root = helpers.REPOSITORY
    files = [root / "flags.txt", *sorted((root / "configs").glob("*.txt"))]
    assert len(files) >= 2
    for path in files:
        assert in_process("train", f"--flagfile={path}")[0] == 0, path
    assert received[0].data.dataset == "photos"


def test_a_flagfile_that_is_not_text_is_refused(in_process, tmp_path):
    (tmp_path / "flags.txt").write_bytes(b"--epochs=3\n\xff\xfe\n")
    code, _, err = in_process(f"--flagfile={tmp_path}/flags.txt")
    assert code == 2 and err.startswith("cnnrnn: ")


@pytest.mark.slow  # in this process: test_quiet_tensorflow
def test_a_gpu_that_cannot_be_used_is_a_warning_before_anything_else(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    # 99: there is no GPU with this index, on a machine with GPUs either.
    machine = {"CNNRNN_DRIVER_ROOT": str(tmp_path), "CUDA_VISIBLE_DEVICES": "99"}
    done = run("evaluate", f"--runs_dir={tmp_path}", **machine)
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: there is an NVIDIA driver, but TensorFlow sees no GPU: ")
    assert error.startswith("cnnrnn: ") and "no trained weights" in error


@pytest.mark.slow
def test_the_sample_at_full_size_through_the_command_line(tmp_path):
    """The real network and weights: phase 1, phase 2 on two replicas, evaluation."""
    common = ["--flagfile=flags.txt", f"--runs_dir={tmp_path}", "--train_per_class=7"]
    common += ["--validation_per_class=4", "--epochs=1"]
    for command in ("phase1", "phase2", "evaluate"):
        extra = ["--logical_cpus=2"] if command == "phase2" else []
        done = run(command, *common, *extra, timeout=900)
        assert done.returncode == 0, done.stderr
    assert "Best weights of phase2 (epoch 1) on 28 validation images" in done.stdout
    assert (tmp_path / "sample" / "results.json").exists()
