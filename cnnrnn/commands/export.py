"""`export`: a trained run as files that work without this package.

EXPORT/
  saved_model/           takes a picture's file, names classes; TensorFlow, TensorFlow Serving
  model.keras            plain Keras
  model.tflite           LiteRT, float32
  model_quantized.tflite LiteRT, weights of 8 bits
  classes.txt            the class names, in the order of the outputs
  README.md              what it is: data, figures, limits, how to use each file
  seal.json              sizes and hashes, what made it
"""

import pathlib
import string

import keras
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors, shapes
from cnnrnn.export import keras_and_litert, saved_model
from cnnrnn.runs import best_weights, manifest, run_folder
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed

_CARD = pathlib.Path(__file__).with_name("model_card.md")


def run(config: config_lib.Config) -> None:
    """Exports the best weights of a run into its folder, in the place of an earlier export.

    Raises:
        UsageError: there is no such run, another process works on it, or in the export's place is
            something else.
        RunError: it cannot be written.
    """
    folder = run_folder.RunFolder(pathlib.Path(config.model or config.run_dir).expanduser())
    target = folder.root / "export"
    if target.exists() and not (target / checksummed.SEAL).exists():
        raise errors.UsageError(f"{target} is there and is no export: move it away.")
    best_weights.latest(folder.best)
    with folder.opened():
        print("export: loading the network")
        classifier = classifier_lib.load(folder.root, precision="float32")
        notes = _notes(folder, classifier, config)
        print("export: writing; LiteRT's files take a minute each", flush=True)
        try:
            with checksummed.writing(target, notes) as temporary:
                _write(classifier, temporary, config, notes)
        except OSError as error:
            reason = error.strerror or error
            raise errors.RunError(f"cannot export to {target}: {reason}.") from error
    for path in sorted(target.rglob("*")):
        if path.is_file():
            print(f"  {path.stat().st_size / 1e6:>8.1f} MB  {path}")


def _write(
    classifier: classifier_lib.Classifier,
    folder: pathlib.Path,
    config: config_lib.Config,
    notes: dict,
) -> None:
    saved_model.write(
        classifier,
        folder / "saved_model",
        top=config.top,
        max_pixels=config.max_pixels,
        notes=notes,
    )
    plain = keras_and_litert.plain_keras(classifier.network)
    plain.save(folder / "model.keras")
    for name, quantized in (("model.tflite", False), ("model_quantized.tflite", True)):
        (folder / name).write_bytes(keras_and_litert.litert(plain, quantized))
    names = "".join(f"{' '.join(name.split())}\n" for name in classifier.class_names)
    (folder / "classes.txt").write_text(names, encoding="utf-8")
    card = string.Template(_CARD.read_text(encoding="utf-8"))
    (folder / "README.md").write_text(card.substitute(notes), encoding="utf-8")


def _notes(
    folder: run_folder.RunFolder, classifier: classifier_lib.Classifier, config: config_lib.Config
) -> dict:
    """What made the export, for the seal and the card."""
    best = classifier.best
    made = folder.manifest().get(best.phase, {})
    dataset = made.get("dataset", {})
    return {
        "run": folder.root.resolve().name,
        "weights_sha256": best.sha256,
        "phase": best.phase,
        "epoch": best.epoch,
        "loss": f"{best.validation.loss:.4f}",
        "top1": f"{best.validation.top1:.2%}",
        "top5": f"{best.validation.top5:.2%}",
        "validation_pictures": f"{best.validation.count:,}",
        "training_pictures": f"{dataset.get('training_examples', 0):,}",
        "dataset": dataset.get("name", "unknown"),
        "fingerprint": dataset.get("fingerprint", "unknown"),
        "classes": len(classifier.class_names),
        "named": min(config.top, len(classifier.class_names)),
        "max_megapixels": f"{config.max_megapixels:g}",
        "resize_method": classifier.resize_method,
        "image_size": shapes.IMAGE_SIZE,
        "git_commit": made.get("git_commit") or "unknown",
        "tensorflow": made.get("packages", {}).get("tensorflow", "unknown"),
        "precision": made.get("precision", "unknown"),
        "export_git_commit": manifest.git_commit() or "unknown",
        "export_tensorflow": tf.__version__,
        "export_keras": keras.__version__,
    }
