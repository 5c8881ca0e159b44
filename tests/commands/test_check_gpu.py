"""`check-gpu`: verdicts, files; the whole list on logical CPUs with the small network."""

import json
import pathlib
import sys

import pytest

from cnnrnn import config, errors
from cnnrnn.commands import check_gpu
from tests import helpers
from tests.commands import check_gpu_stand_ins

STAND_IN = (sys.executable, check_gpu_stand_ins.__file__)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return config.Config.of(runs_dir=str(tmp_path / "runs"))


def results(settings):
    """(verdict, text) by check, from the file; and the table of the other file."""
    root = pathlib.Path(settings.run.runs_dir)
    record = json.loads((root / "check-gpu.json").read_text())
    found = {result["name"]: (result["verdict"], result["text"]) for result in record["results"]}
    return found, (root / "check-gpu.txt").read_text()


@pytest.mark.thorough
def test_failures_of_every_kind_are_lines_of_the_table(settings, capsys):
    with pytest.raises(errors.RunError, match="^9 of 12 checks failed: lstm-kernels, phase1-b"):
        failing = settings.replace(batch_size=(33, 16))
        check_gpu.run((), failing, STAND_IN, check_gpu_stand_ins.failing)
    found, table = results(settings)
    expected = {
        "lstm-kernels": ("FAIL", "ended with exit code 7"),
        "phase1-float32": ("PASS", "so fast"),
        "phase1-bfloat16": ("FAIL", "first steps are 4.6000, 9.9000 instead of 4.6000, 4.5000"),
        "phase2-float32": ("PASS", "so fast"),
        "phase2-bfloat16": ("FAIL", "first steps are 4.6000, 4.6000 instead of 4.6000, 4.5000"),
        "phase2-float16": ("FAIL", "first steps are 4.6000, nan instead of"),
        "images": ("FAIL", "out of memory: 2 GB on the GPU"),
        "replicas": ("FAIL", "by up to 0.0e+00 (relative), and by nan after"),
        "determinism": (
            "FAIL",
            "two training runs are identical with --deterministic in float32, different with "
            "--deterministic in bfloat16, identical without it in float32, identical",
        ),
        "export": ("FAIL", "differ by up to 2.0e-02, across images by 3.0e-01"),
        "resume": ("FAIL", "verify-resume ended with exit code 1: the last line"),
    }
    for name, (verdict, text) in expected.items():
        assert found[name][0] == verdict and text in found[name][1]
        assert f"{verdict}  {name:<20}  {found[name][1]}\n" in table
    assert capsys.readouterr().out.endswith(f"\n{table}\n")


def test_the_checks_that_are_named_are_run(settings, capsys):
    check_gpu.run(["replicas", "lstm-kernels"], settings, STAND_IN, check_gpu_stand_ins.passing)
    found, _ = results(settings)
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "lstm-kernels": "PASS",
        "replicas": "PASS",
    }
    check_gpu.run(["phase1-bfloat16"], settings, STAND_IN, check_gpu_stand_ins.passing)
    found, _ = results(settings)
    assert "not compared with phase1-float32, which has no result" in found["phase1-bfloat16"][1]
    with pytest.raises(errors.UsageError, match="no check 'repliacs': expected some of lstm-k"):
        check_gpu.run(["repliacs"], settings, STAND_IN, check_gpu_stand_ins.passing)


def test_the_recipe_is_measured_whatever_the_options_of_training(settings):
    options = {
        "mixup": 0.2,
        "accumulation_steps": (4, 4),
        "phase2_batchnorm": "frozen",
        "cnn_image_size": "160",
        "sampling": "balanced",
        "class_weights": "balanced",
        "fusion": "sum",
        "init_from": "/runs/a",
        "rnn_weights": "/runs/b",
    }
    check_gpu.run(
        ["phase1-float32"],
        settings.replace(**options, dataset="/photos", logical_cpus=2),
        STAND_IN,
        check_gpu_stand_ins.of_the_recipe,
    )
    cached = settings.replace(augmentation="standard", cached_views=3)
    check_gpu.run(["images"], cached, STAND_IN, check_gpu_stand_ins.of_the_recipe)


def test_one_gpu_has_no_replicas_to_compare(settings):
    check_gpu.run(["replicas"], settings, STAND_IN, check_gpu_stand_ins.with_one_gpu)
    assert results(settings)[0] == {"replicas": ("SKIP", "there is one device only")}


def test_without_a_gpu_nothing_is_checked_unless_asked_for(settings):
    with pytest.raises(errors.UsageError, match="^No GPU here. --logical_cpus=2 runs the same"):
        check_gpu.run((), settings, STAND_IN, check_gpu_stand_ins.without_gpu)


@pytest.mark.gpu
def test_the_gpus_of_this_machine(settings):
    """The whole list at full size."""
    check_gpu.run((), settings)


@pytest.mark.slow
def test_the_whole_list_on_two_logical_cpus(settings, images, capsys):
    from tests import small_network

    settings = settings.replace(dataset=str(images), batch_size=(4, 2), logical_cpus=2)
    check_gpu.run((), settings, helpers.SMALL_PROGRAM, small_network.measure)
    assert [verdict for verdict, _ in results(settings)[0].values()] == ["PASS"] * 12
