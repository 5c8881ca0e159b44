"""`predict` and `explain`: images of all kinds, output formats, runs and exports."""

import csv
import functools
import io
import json
import os
import re
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.commands import explain, export, predict
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.evaluation import charts
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.export import keras_and_litert, loader
from cnnrnn.models import attribution
from cnnrnn.preprocessing import image_header
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed
from cnnrnn.training import steps
from tests import bad_images, helpers

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture
def predicted(trained, capsys):
    """Runs `predict`; returns its output and its error."""

    def run(*arguments, **settings):
        capsys.readouterr()
        failure = None
        try:
            predict.run([str(a) for a in arguments], trained.replace(**settings))
        except errors.RunError as error:
            failure = str(error)
        return capsys.readouterr().out, failure

    return run


@functools.cache
def brightness_of(max_pixels):
    """A function of an encoded image, which is read as for a run; traced once."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def brightness(encoded):
        image = views_lib.decode(image_header.limited(encoded, max_pixels))
        return tf.reduce_mean(tf.cast(image, tf.float32)) / 255

    return brightness


@pytest.fixture
def by_brightness(monkeypatch):
    """Images are classified by their brightness, and not by a run."""

    def load_run(_, config):
        top, max_pixels = config.prediction.top_of_run, config.data.max_pixels

        def classify(batch):
            for brightness in batch.numpy():
                distances = np.abs(np.linspace(0, 1, len(helpers.CLASSES)) - brightness)
                order = np.argsort(distances)[:top]
                yield [(helpers.CLASSES[i], float(1 - distances[i])) for i in order]

        return brightness_of(max_pixels), classify, max_pixels

    monkeypatch.setattr(predict, "_load_run", load_run)


def test_predictions_match_those_of_the_evaluation(trained, predicted, one_replica):
    out, failure = predicted(f"{trained.data.dataset}/val", format="jsonl", top=3)
    records = [json.loads(line) for line in out.splitlines()]
    assert failure is None and len(records) == 9
    data = dataset_lib.load(trained)
    classifier = classifier_lib.load(trained.run_dir)
    reference = predictions_lib.Evaluator(
        steps.make_eval_step(classifier.network, one_replica),
        one_replica,
        batch_size=4,
        preprocessing=views_lib.Preprocessing(),
    ).predict(data.validation, label="reference")
    by_path = {record["path"]: record["classes"] for record in records}
    for index in range(9):
        first, *_ = classes = by_path[data.validation.path(index)]
        assert [data.class_names.index(c["class"]) for c in classes] == list(
            reference.top[index][:3]
        )
        assert first["probability"] == pytest.approx(reference.probability[index], abs=1e-6)
        assert sum(c["probability"] for c in classes) == pytest.approx(1, abs=1e-5)


@pytest.mark.thorough
def test_bad_images_have_an_error_in_their_place(by_brightness, predicted, tmp_path):
    folder = tmp_path / "all kinds"
    bad_images.write(folder)
    out, failure = predicted(folder, format="jsonl")
    records = {r["path"].rsplit("/", 1)[1]: r for r in map(json.loads, out.splitlines())}
    for name in bad_images.BAD | set(bad_images.NO_FILES):
        assert "error" in records[name]
    good = set(bad_images.FILES) - bad_images.BAD
    for name in good - {"zwei\nzeilen.png"}:
        assert len(records[name]["classes"]) == 3
    assert records[r"zwei\nzeilen.png"]["classes"]
    bad = len(bad_images.BAD) + len(bad_images.NO_FILES)
    assert failure == f"{bad} of {len(records)} images could not be read."


def test_output_formats(by_brightness, predicted, images, tmp_path):
    good = sorted((images / "val" / "gray").iterdir())[0]
    out, failure = predicted(good, tmp_path / "none.jpg", top=2)
    lines = out.splitlines()
    assert lines[0] == str(good) and len(lines) == 4
    shown = [re.fullmatch(r" +(\d+\.\d)%  (\w+)", line).groups() for line in lines[1:3]]
    assert lines[3] == f"{tmp_path / 'none.jpg'}: cannot be read (No such file or directory)"
    assert failure.startswith("1 of 2")
    out, _ = predicted(good, tmp_path / "none.jpg", top=2, format="csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert rows[0]["class"] == "gray" and float(rows[0]["probability"]) > 0
    assert shown == [(f"{float(row['probability']):.1%}"[:-1], row["class"]) for row in rows[:2]]
    assert rows[2]["error"].startswith("cannot be read")


def test_patterns_and_paths_on_standard_input(
    by_brightness, predicted, images, tmp_path, monkeypatch
):
    out, _ = predicted(images / "val" / "*" / "*_01.png", format="jsonl")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["classes"][0]["class"] for record in records] == list(helpers.CLASSES)
    one, *others = (next((images / "val" / name).iterdir()) for name in helpers.CLASSES)
    many = [tmp_path / f"{i:03d}.png" for i in range(70)]
    for path in many:
        shutil.copy(one, path)
    for path in many[33::36]:  # in the second and in the third batch
        shutil.copy(others[0], path)
    listed = b"".join(os.fsencode(path) + b"\r\n" for path in many)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    out, _ = predicted("-", format="jsonl")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["path"] for record in records] == list(map(str, many))
    classes = [record["classes"] for record in records]
    assert classes[33] == classes[69] != classes[0] == classes[68]
    assert [best["class"] for best, *_ in classes].count(helpers.CLASSES[0]) == 68


def test_invalid_paths_have_an_error_in_their_place(
    by_brightness, predicted, images, tmp_path, monkeypatch
):
    good = next((images / "val" / "white").iterdir())
    odd = os.path.join(os.fsencode(tmp_path), b"not_utf8_\xff.png")
    shutil.copy(good, odd)
    listed = b"\n".join([os.fsencode(good), b"two\0names", odd, b""])
    # As in a UTF-8 locale, where reading invalid text raises.
    stdin = io.TextIOWrapper(io.BytesIO(listed), encoding="utf-8", errors="strict")
    monkeypatch.setattr("sys.stdin", stdin)
    out, failure = predicted("-", format="jsonl")
    records = [json.loads(line) for line in out.splitlines()]
    assert ["error" in record for record in records] == [False, True, False]
    assert "null byte" in records[1]["error"] and failure.startswith("1 of 3")


def test_a_path_back_from_a_link_is_that_of_the_system(
    by_brightness, predicted, images, tmp_path, monkeypatch
):
    white, black = (next((images / "val" / name).iterdir()) for name in ("white", "black"))
    (tmp_path / "2026" / "july").mkdir(parents=True)
    (tmp_path / "today").symlink_to("2026/july")
    shutil.copy(white, tmp_path / "2026" / "cover.png")
    shutil.copy(black, tmp_path / "cover.png")
    monkeypatch.chdir(tmp_path)
    out, failure = predicted("today/../cover.png", "cover.png", format="jsonl", top=1)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["path"] for record in records] == ["today/../cover.png", "cover.png"]
    assert [record["classes"][0]["class"] for record in records] == ["white", "black"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_lines_are_valid_whatever_the_encoding_of_the_output(
    by_brightness, trained, images, tmp_path, monkeypatch, encoding
):
    named = tmp_path / "\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    shutil.copy(next((images / "val" / "white").iterdir()), named)
    written = io.BytesIO()
    output = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", output)
    predict.run([str(named)], trained.replace(format="jsonl"))
    output.flush()
    assert json.loads(written.getvalue())["path"] == str(named)


def test_predictions_and_progress_do_not_share_a_line_on_a_terminal(
    by_brightness, trained, images, monkeypatch
):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, terminal)
    predict.run([str(images / "val" / "white")], trained.replace(top=1))
    lines = [line.rsplit("\r", 1)[-1] for line in terminal.getvalue().splitlines()]
    assert all(line.startswith(("/", "  ")) for line in lines if ".png" in line or "%" in line)
    assert "predict: 0/3 images" in terminal.getvalue()
    assert not lines[-1].startswith("predict")  # the progress line is erased
    assert sum(line.endswith(".png") and line.startswith("/") for line in lines) == 3


@pytest.mark.thorough
def test_an_export_predicts_like_its_run(trained, predicted, images, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = images / "val", tmp_path / "bad.png"
    run, failure = predicted(*paths, format="jsonl", top=2)
    monkeypatch.setattr(keras_and_litert, "litert", lambda *_: b"")  # slow, and not used here
    export.run((), trained.replace(top=2))
    # It is loaded in three ways below, and TensorFlow's part of it takes seconds.
    monkeypatch.setattr(tf.saved_model, "load", functools.cache(tf.saved_model.load))
    folder = str(trained.run_dir / "export")
    exported, exported_failure = predicted(*paths, format="jsonl", top=2, model=folder)
    assert exported_failure == failure == "1 of 10 images could not be read."
    for mine, other in zip(run.splitlines(), exported.splitlines(), strict=True):
        mine, other = json.loads(mine), json.loads(other)
        assert [mine["path"], mine.get("error")] == [other["path"], other.get("error")]
        for one, two in zip(mine.get("classes", ()), other.get("classes", ()), strict=True):
            assert one["class"] == two["class"]
            assert one["probability"] == pytest.approx(two["probability"], abs=1e-6)
    assert predicted(*paths, format="jsonl", model=folder)[0] == exported  # all that it returns
    few, _ = predicted(*paths, format="jsonl", model=folder, max_megapixels=1e-5)
    assert few.count("more than --max_megapixels=1e-05 allows") == 9
    with pytest.raises(errors.UsageError, match="returns 2 classes"):
        predict.run(["x.jpg"], trained.replace(model=folder, top=3))
    with pytest.raises(errors.UsageError, match="size=160: the export .* was made for 299"):
        predict.run(["x.jpg"], trained.replace(model=folder, top=2, eval_image_size=160))
    settings = trained.replace(model=folder, top=2)
    (trained.run_dir / "export" / "saved_model" / "fingerprint.pb").write_bytes(b"other")
    with pytest.raises(errors.RunError, match="damaged"):
        predict.run(["x.jpg"], settings)
    capsys.readouterr()
    (trained.run_dir / "export" / "seal.json").unlink()
    with pytest.raises(errors.UsageError, match="give --trust_export"):
        predict.run(["x.jpg"], settings)
    assert "runs as a program" in capsys.readouterr().err
    assert predicted(*paths, format="jsonl", top=2, model=folder, trust_export=True)[0] == exported


@pytest.mark.thorough
def test_an_image_with_more_pixels_than_an_export_takes_is_named(
    trained, predicted, images, shared_export, tmp_path, capsys
):
    folder = shutil.copytree(shared_export, tmp_path / "export")
    manifest = checksummed.read_json(folder / "seal.json")
    notes = manifest["notes"] | {"max_megapixels": "1"}
    checksummed.write_json(folder / "seal.json", manifest | {"notes": notes})
    (tmp_path / "large.png").write_bytes(bad_images.FILES["bomb.png"][0])
    good = next((images / "val" / "white").iterdir())
    with pytest.raises(errors.RunError, match="1 of 2"):
        predict.run([str(tmp_path / "large.png"), str(good)], trained.replace(model=str(folder)))
    captured = capsys.readouterr()
    assert "large.png: has 1,600.0 million pixels" in captured.out
    assert "more than --max_megapixels=1 allows" in captured.out
    assert "the export was created with --max_megapixels=1." in captured.err


@pytest.mark.parametrize(
    "recorded, asked, used",
    [
        ("200", 100.0, 200),
        ("200", 50.0, 50),
        ("50", 100.0, 50),
        (None, 300.0, 300),
        ("2.01", 100.0, 2.01),
        ("16.777216", 100.0, 16.777216),
    ],
)
def test_the_limit_of_an_export_holds_unless_a_lower_one_is_asked_for(
    recorded, asked, used, monkeypatch, capsys, tmp_path
):
    metadata = {"max_megapixels": recorded} if recorded else {}
    export = loader.Export({}, metadata | {"classes": 3, "top": 2})
    monkeypatch.setattr(loader, "load", lambda *_, **__: export)
    monkeypatch.setattr(loader, "check_image_size", lambda *_: None)
    settings = config_lib.Config.of(max_megapixels=asked)
    assert predict._load_export(tmp_path, settings)[2] == round(used * 1e6)
    warning = f"the export was created with --max_megapixels={recorded}."
    assert (warning in capsys.readouterr().out) == (used < asked)


def test_nothing_is_written_if_there_is_no_model(images, tmp_path, capsys):
    image = str(next((images / "val" / "white").iterdir()))
    with pytest.raises(errors.UsageError, match="no trained weights"):
        predict.run([image], config_lib.Config.of(model=str(tmp_path), format="csv"))
    assert capsys.readouterr().out == ""


def test_missing_images_or_weights_are_reported(trained, tmp_path):
    with pytest.raises(errors.UsageError, match="expected images"):
        predict.run([], trained)
    with pytest.raises(errors.UsageError, match="no trained weights"):
        predict.run(["x.jpg"], config_lib.Config.of(model=str(tmp_path)))


def test_more_classes_than_fit_into_a_figure_are_refused(small_network, trained, monkeypatch):
    monkeypatch.setattr(explain, "_MOST_CLASSES", 2)
    with pytest.raises(errors.UsageError, match="--top=5: a figure has room for 2 classes"):
        explain.run(["photo.jpg"], trained.replace(top=5))


@pytest.mark.thorough
def test_explanations_are_written_and_bad_images_reported(trained, images, tmp_path, capsys):
    good = tmp_path / ("\N{CJK UNIFIED IDEOGRAPH-9CE5}" * 80 + ".png")  # 244 bytes
    shutil.copy(next((images / "val" / "white").iterdir()), good)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(errors.RunError, match="1 of 2"):
        explain.run([str(tmp_path / "bad.jpg"), str(good)], trained.replace(top=2))
    output = capsys.readouterr().out
    assert "bad.jpg: is not an image" in output and "%, " in output
    (written,) = (trained.run_dir / "explanations").iterdir()
    pixels = tf.io.decode_png(written.read_bytes()).numpy()
    assert written.name == f"{good.stem[-48:]}.png.png" and pixels.shape[0] > 600


def test_an_explanation_is_replaced_by_one_of_the_same_image_only(
    trained, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(charts, "explanation_figure", lambda *_: b"a figure")
    maps = types.SimpleNamespace(cam=None, timesteps=None)
    monkeypatch.setattr(
        attribution.Explainer, "explain", lambda _, __, labels: [[maps] * labels.shape[1]]
    )
    image = next((images / "val" / "white").iterdir())
    for name in ("one/1.png", "two/1.png", "one-1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / name)
    written = trained.run_dir / "explanations"
    shutil.rmtree(written, ignore_errors=True)
    prefix = str(tmp_path).replace("/", "-").removeprefix("-")
    for paths in (["one/1.png"], ["two/1.png"], ["two/../one/1.png", "one-1.png", "one/1.png"]):
        explain.run([str(tmp_path / path) for path in paths], trained)
    names = {path.name.removeprefix(prefix) for path in written.iterdir()}
    assert names == {"-one-1.png.png", "-two-1.png.png", "-one-1.png-2.png"}
    assert capsys.readouterr().out.count("-one-1.png.png\n") == 3


@pytest.mark.parametrize("path", ["photo.jpg", "./photo.jpg", "/photo.jpg", "../photo.jpg"])
def test_no_explanation_is_a_hidden_file(path):
    assert explain._name(path, {}) == "photo.jpg"
