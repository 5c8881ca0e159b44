"""Accuracy and speed of exported files, beside the trained run, on validation images.

    python -m benchmarks.exports --run=runs/NAME --dataset=path/to/images --count=500

Each file runs in a separate process that does not import cnnrnn: the SavedModel in TensorFlow, the
Keras file in Keras, the LiteRT files in ai-edge-litert (requirements-dev.txt). Run
`./run.sh export` first.
"""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

# isort: split
import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.runs import identity, run_folder

_TOP = 5
_BATCH = 16
# The settings that determine the validation split. How many images of it the run used does not
# matter here.
_SPLIT = ("validation_fraction", "split_seed", "fold", "class_separator")
# Each program reads its working folder and writes labels and probabilities there, (N, 5) each.
_COMMON = """
import sys, time, pathlib
import numpy as np
export = pathlib.Path(sys.argv[1])
def top5(probabilities):
    labels = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    return labels, np.take_along_axis(probabilities, labels, 1)
"""
_END = """
seconds = time.perf_counter() - start
assert not any(name.split(".")[0] == "cnnrnn" for name in sys.modules)
np.savez("predictions.npz", labels=labels, probabilities=probabilities, seconds=seconds)
"""
_SAVED_MODEL = """
import tensorflow as tf
names = (export / "classes.txt").read_text(encoding="utf-8").splitlines()
files = [path.read_bytes() for path in sorted(pathlib.Path("images").iterdir())]
classify = tf.saved_model.load(str(export / "saved_model")).signatures["serving_default"]
classify(image_bytes=tf.constant(files[:1]))
start = time.perf_counter()
batches = [classify(image_bytes=tf.constant(files[i : i + 16]))
           for i in range(0, len(files), 16)]
assert not any(error for batch in batches for error in batch["error"].numpy())
labels = np.array([[names.index(" ".join(name.decode().split())) for name in image_classes]
                   for batch in batches for image_classes in batch["classes"].numpy()])
probabilities = np.concatenate([batch["probabilities"].numpy() for batch in batches])
"""
_KERAS = """
import keras
views = np.load("views.npy")
model = keras.saving.load_model(export / "model.keras")
model.predict(views[:1], verbose=0)
start = time.perf_counter()
labels, probabilities = top5(model.predict(views, batch_size=16, verbose=0))
"""
_LITERT = """
from ai_edge_litert.interpreter import Interpreter
pixels = (np.load("views.npy") + 1) * np.float32(127.5)
classify = Interpreter(str(export / "{name}")).get_signature_runner()
classify(image=pixels[:1])
start = time.perf_counter()
labels, probabilities = top5(
    np.concatenate([classify(image=one[None])["probabilities"] for one in pixels]))
"""
_PROGRAMS = {
    "saved_model": _SAVED_MODEL,
    "model.keras": _KERAS,
    "model.tflite": _LITERT.replace("{name}", "model.tflite"),
    "model_quantized.tflite": _LITERT.replace("{name}", "model_quantized.tflite"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """The measurements of one file.

    Attributes:
        name: of the file; "this program" for the run itself.
        megabytes: size on disk.
        top1, top5: accuracy, from 0 to 1.
        difference: the largest difference of a probability from the run's, over the five most
            likely classes.
        per_second: images/s; for the SavedModel this includes decoding.
    """

    name: str
    megabytes: float
    top1: float
    top5: float
    difference: float
    per_second: float


def measure(
    classifier: classifier_lib.Classifier,
    export: pathlib.Path,
    contents: list[bytes],
    labels: np.ndarray,
    names: tuple[str, ...] = tuple(_PROGRAMS),
) -> list[Row]:
    """Measures exported files.

    Args:
        classifier: the run that was exported.
        export: the export folder.
        contents: N encoded images.
        labels: (N,) int, their classes.
        names: the files to measure.

    Returns:
        The run itself, then a row per file.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "images").mkdir()
        for number, content in enumerate(contents):
            (folder / "images" / f"{number:06d}").write_bytes(content)
        images = [classifier.preprocessing.rgb(views_lib.decode(content)) for content in contents]
        np.save(folder / "views.npy", np.stack(images))  # the files scale them for the CNN
        views = [classifier.preprocessing.inputs_of(image) for image in images]
        classify = tf.function(classifier.probabilities)
        reference = np.concatenate(
            [classify(_batch(views[at : at + _BATCH])) for at in range(0, len(views), _BATCH)]
        )
        del images, views
        hits = _hits(np.argsort(-reference)[:, :_TOP], labels)
        rows = [Row("this program", 0.0, *hits, 0.0, float("nan"))]
        for name in names:
            program = _COMMON + _PROGRAMS[name] + _END
            subprocess.run(
                [sys.executable, "-I", "-c", program, str(export.resolve())],
                cwd=folder,
                check=True,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"},
            )
            with np.load(folder / "predictions.npz") as predicted:
                expected = np.take_along_axis(reference, predicted["labels"], 1)
                difference = float(np.abs(expected - predicted["probabilities"]).max())
                per_second = len(contents) / float(predicted["seconds"])
                hits = _hits(predicted["labels"], labels)
                rows.append(Row(name, _size(export / name) / 1e6, *hits, difference, per_second))
    return rows


def _batch(views: list[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return {name: tf.stack([view[name] for view in views]) for name in views[0]}


def _hits(top: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of (N, 5) predicted labels, most likely first."""
    hits = top == labels[:, np.newaxis]
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())


def _size(path: pathlib.Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _data_config(run: pathlib.Path, dataset: str, archive: str) -> config_lib.Config:
    """The settings of a data set with the validation split of a run."""
    recorded = identity.ADDED | run_folder.RunFolder(run).config()["data"]
    split = {name: recorded[name] for name in _SPLIT}
    return config_lib.Config.of(dataset=dataset, archive=archive, **split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, type=pathlib.Path, help="folder of a trained run")
    parser.add_argument("--dataset", required=True, help="as for ./run.sh train")
    parser.add_argument("--archive", default="", help="as for ./run.sh train")
    parser.add_argument("--count", type=int, default=500, help="number of validation images")
    options = parser.parse_args()
    if importlib.util.find_spec("ai_edge_litert") is None:
        parser.error("ai-edge-litert is not installed: pip install -r requirements-dev.txt")
    classifier = classifier_lib.load(options.run, precision="float32")
    data = dataset_lib.load(_data_config(options.run, options.dataset, options.archive))
    if data.class_names != classifier.class_names:
        parser.error(f"{options.run} was trained on other classes than those of {options.dataset}")
    count = min(options.count, len(data.validation))
    chosen = np.linspace(0, len(data.validation) - 1, count).astype(np.int64)
    fetched = tf.data.Dataset.from_tensor_slices(chosen).map(data.validation.fetch)
    pairs = [(content, label) for content, label in fetched.as_numpy_iterator()]
    rows = measure(
        classifier, options.run / "export", [p[0] for p in pairs], np.array([p[1] for p in pairs])
    )
    print(f"{count} validation images of {data.name}\n")
    print("| file | MB | top-1 | top-5 | largest difference of a probability | images/s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    program, *exported = rows
    print(f"| this program | | {program.top1:.1%} | {program.top5:.1%} | | |")
    for row in exported:
        print(
            f"| {row.name} | {row.megabytes:,.0f} | {row.top1:.1%} | {row.top5:.1%} | "
            f"{row.difference:.1e} | {row.per_second:.1f} |"
        )


if __name__ == "__main__":
    main()
