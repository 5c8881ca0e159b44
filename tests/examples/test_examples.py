"""The examples of cnnrnn as a library, with the small network."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import types

import matplotlib
import pytest
import sklearn.datasets

import cnnrnn
from tests import helpers

EXAMPLES = helpers.REPOSITORY / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports an example by its name, as a script would run it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("own_loop", None)


def test_public_names_exist_and_come_without_tensorflow():
    code = "import sys, cnnrnn; print(*cnnrnn.__all__, 'tensorflow' in sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=EXAMPLES.parent)
    *names, imported = output.split()
    assert imported == "False" and set(names) <= set(dir(cnnrnn))
    for name in names:
        assert getattr(cnnrnn, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'LTSM'"):
        _ = cnnrnn.LTSM


@pytest.mark.thorough
def test_a_loop_of_ones_own_learns(example, small_network, images):
    losses = example("own_loop").main(images / "train", epochs=6, xception="none")
    assert losses[-1] < losses[0]


@pytest.mark.thorough
def test_a_fusion_of_ones_own_learns(example, small_network, images):
    losses = example("own_fusion").main(images / "train", epochs=6, xception="none")
    assert losses[-1] < losses[0]


@pytest.mark.thorough
def test_the_lstm_layer_runs_in_another_model(example, monkeypatch):
    digits = sklearn.datasets.load_digits()
    few = types.SimpleNamespace(images=digits.images[:64], target=digits.target[:64])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    example("lstm_layer").main(units=4, epochs=1)


@pytest.mark.slow
def test_the_lstm_layer_reads_digits_in_another_model(example):
    assert example("lstm_layer").main(units=32, epochs=5) > 0.5  # by chance a tenth


@pytest.mark.thorough
def test_the_notebook_runs(small_network, small_config, in_process, tmp_path, monkeypatch):
    def system(command):
        """Runs a line that starts with '!', but with the small network."""
        words = shlex.split(command)
        assert words[:3] == [sys.executable, "-m", "cnnrnn.main"]
        code, _, report = in_process(*words[3:])
        assert code == 0, report

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "images_to_predictions.ipynb").read_text())
    names = {"system": system}
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            source = re.sub("^!(.*)$", r"system(f'''\1''')", "".join(cell["source"]), flags=re.M)
            exec(compile(source, f"cell {i}", "exec"), names)
        if i == 1:  # the settings
            names["IMAGES"] = f"{small_config.data.dataset}/train"
            names["FLAGS"] = "--xception_weights=none --epochs=1 --batch_size=4"
    assert names["probabilities"].shape == (4, 3)
    assert (tmp_path / "runs" / "notebook" / "evaluation" / "report.html").exists()
