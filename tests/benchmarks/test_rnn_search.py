"""The search over fusions and remedies, with the small network."""

import csv
import json
import math
import pathlib

import pytest

from benchmarks import headline_record, rnn_search
from cnnrnn import errors
from cnnrnn.system import child_process
from tests import helpers

FEW = (
    rnn_search.Trial("cnn", ()),
    rnn_search.Trial("rnn", ("standardized", "layer_norm", "low_rate")),
    rnn_search.Trial("gated", ("standardized", "layer_norm", "low_rate", "pretrained")),
)


def rows_of(results: pathlib.Path) -> list[dict[str, str]]:
    with open(results / "test.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_all_fusions_are_tried_with_the_remedies_that_apply():
    names = [trial.run for trial in rnn_search.TRIALS]
    assert len(names) == len(set(names)) == 2 + 4 + 4 * 3
    assert names[:2] == ["cnn", "gain"]
    assert names[6:10] == ["product", "sum", "concatenation", "gated"]
    assert names[2:6] == [f"{fusion}+standardized+layer_norm+low_rate" for fusion in names[6:10]]
    assert "cnn+standardized" not in names
    assert "rnn+standardized+layer_norm+low_rate+pretrained" not in names
    for number, trial in enumerate(rnn_search.TRIALS):
        settings = trial.settings(pathlib.Path("root"))
        source = pathlib.Path(settings.get("rnn_weights", "root/cnn")).name
        assert source in names[: max(number, 1)]


@pytest.mark.slow
def test_each_network_is_trained_scored_and_recorded_once(
    small_config, small_network, in_process, monkeypatch, tmp_path
):
    calls, output = [], []

    def call(program, arguments):
        word, run = arguments[0], next(a for a in arguments if a.startswith("--run="))
        calls.append(f"{word} {run.removeprefix('--run=')}")
        if len(calls) == 3:
            raise errors.RunError("killed")
        code, printed, problem = in_process(*arguments)
        assert code == 0, problem
        output.append(printed)

    monkeypatch.setattr(child_process, "run", call)
    monkeypatch.setattr(rnn_search, "TRIALS", FEW)
    results = tmp_path / "results"
    config = small_config.replace(fold="1/3", train_per_class=6, feature_cache=str(tmp_path / "f"))
    with pytest.raises(errors.RunError, match="killed"):
        rnn_search.search(config, results=results)
    assert [row["fusion"] for row in rows_of(results)] == ["cnn"]
    rnn_search.search(config, results=results)
    rnn, gated = (trial.run for trial in FEW[1:])
    expected = ["phase1 cnn", "evaluate cnn", f"phase1 {rnn}"]
    expected += [f"{word} {run}" for run in (rnn, gated) for word in ("phase1", "evaluate")]
    assert calls == expected
    # The features of each split are computed once for all networks.
    assert sum(text.count("feature cache: computing") for text in output) == 2

    root = config.run_dir.with_name("test.rnn_search")
    assert (
        f"RNN: {root / rnn}/best/"
        in json.loads((root / gated / "manifest.json").read_text())["phase1"]["started_from"]
    )
    assert (root / rnn / "best").exists() and not (root / gated / "best").exists()
    assert not list(root.glob("*/checkpoints"))
    rows = rows_of(results)
    for row, trial in zip(rows, FEW, strict=True):
        recorded = json.loads((root / trial.run / "results.json").read_text())
        assert float(row["top1"]) == recorded["validation"]["top1"]
        assert int(row["images"]) == recorded["validation"]["count"] == 6
        assert float(row["top1_low"]) <= float(row["top1"]) <= float(row["top1_high"])
        assert float(row["images_per_second"]) > 0
        assert float(row["minus_cnn"]) == pytest.approx(float(row["top1"]) - float(rows[0]["top1"]))
        has_rnn = trial.fusion != "cnn"
        low, high = float(row["minus_cnn_low"]), float(row["minus_cnn_high"])
        assert low < float(row["minus_cnn"]) < high if has_rnn else low == high == 0
        assert math.isnan(float(row["rnn_std"])) != has_rnn
        if has_rnn:
            assert float(row["rnn_mean_abs"]) == recorded["branches"]["rnn"]["mean_abs"]
    assert rows[2]["remedies"] == "standardized + layer_norm + low_rate + pretrained"
    page = (results / "README.md").read_text()
    assert "--fold=1/3" in page and "| `--fusion=cnn` |" in page and "6 held-out images" in page
    assert "`--fusion=gated` `--rnn_input=standardized` `--rnn_layer_norm=True`" in page
    assert str(config.run.runs_dir) not in page and str(tmp_path) not in page

    rnn_search.search(config, results=results)
    assert len(calls) == len(expected) and rows_of(results) == rows
    with pytest.raises(errors.UsageError, match=r"trained with --epochs: \[2, 2\] \(now \[3, 3\]"):
        rnn_search.search(config.replace(epochs=(3, 3)), results=results)
    other = root / rnn / "manifest.json"
    recorded = other.read_text()
    for key in ("dataset.fingerprint", "xception_weights.sha256"):
        changed = json.loads(recorded)
        part, name = key.split(".")
        changed["phase1"][part] = changed["phase1"][part] | {name: "other"}
        other.write_text(json.dumps(changed))
        with pytest.raises(errors.UsageError, match=f"not trained on the same images.*{key}"):
            rnn_search.search(config, results=results)


def test_the_table_of_a_search_that_came_further_is_kept(tmp_path, capsys):
    rows = list(headline_record.read_rows(rnn_search.RESULTS / "digit_stacks.csv", rnn_search.Row))
    rnn_search._write(tmp_path, "test", rows[:2])
    rnn_search._write(tmp_path, "test", rows[:1])
    assert [row["fusion"] for row in rows_of(tmp_path)] == ["cnn", "gain"]
    assert "test.csv stays as it is: it has more networks" in capsys.readouterr().out
    rnn_search._write(tmp_path, "test", rows[:3])
    assert [row["fusion"] for row in rows_of(tmp_path)] == [row.fusion for row in rows[:3]]
    assert f"3 of {len(rnn_search.TRIALS)} networks so far" in (tmp_path / "README.md").read_text()


def test_what_the_search_varies_is_refused(small_config, capsys):
    with pytest.raises(errors.UsageError, match="--fusion is chosen by the search"):
        rnn_search.search(small_config.replace(fusion="sum"))
    with pytest.raises(errors.UsageError, match="--test_dataset does not fit a comparison"):
        rnn_search.search(small_config.replace(test_dataset="digits"))
    for arguments, message in (
        (["--rnn_layer_norm"], "--rnn_layer_norm is chosen by the search"),
        (["--epochs=0"], "--epochs=0 is not valid"),
        (["--epohcs=1"], "Unknown command line flag"),
        (["digits"], "expected flags only. Received: 'digits'"),
    ):
        with pytest.raises(SystemExit, match=message):
            rnn_search.main(arguments)
    rnn_search.main(["--help"])
    assert "--fold, by default 1/10" in capsys.readouterr().out


@pytest.mark.slow
def test_networks_are_trained_in_processes_of_their_own(small_config, monkeypatch, tmp_path):
    monkeypatch.setattr(rnn_search, "TRIALS", FEW[:1])
    program = helpers.SMALL_PROGRAM
    config = small_config.replace(fold="1/3")
    rnn_search.search(config, program, tmp_path)
    assert [row["fusion"] for row in rows_of(tmp_path)] == ["cnn"]
    with pytest.raises(errors.RunError, match="phase1 .* ended with exit code 2"):
        rnn_search.search(config.replace(run="other", dataset="/nowhere"), program, tmp_path)
