"""A trained run as files that need nothing of this package.

EXPORT/
  saved_model/           takes an image's file, names classes; TensorFlow, TensorFlow Serving
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
from cnnrnn import shapes
from cnnrnn.export import keras_and_litert, saved_model
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.runs import manifest, run_folder

_CARD = pathlib.Path(__file__).with_name("model_card.md")


def write(
    classifier: classifier_lib.Classifier,
    folder: pathlib.Path,
    config: config_lib.Config,
    notes: dict,
) -> None:
    saved_model.write(
        classifier,
        folder / "saved_model",
        top=config.prediction.top,
        max_pixels=config.data.max_pixels,
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


def describe(
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
        "validation_images": f"{best.validation.count:,}",
        "training_images": f"{dataset.get('training_examples', 0):,}",
        "dataset": dataset.get("name", "unknown"),
        "fingerprint": dataset.get("fingerprint", "unknown"),
        "classes": len(classifier.class_names),
        "named": min(config.prediction.top, len(classifier.class_names)),
        "max_megapixels": f"{config.data.max_megapixels:g}",
        "resize_method": classifier.preprocessing.resize_method,
        "image_size": shapes.IMAGE_SIZE,
        "git_commit": made.get("git_commit") or "unknown",
        "tensorflow": made.get("packages", {}).get("tensorflow", "unknown"),
        "precision": made.get("precision", "unknown"),
        "export_git_commit": manifest.git_commit() or "unknown",
        "export_tensorflow": tf.__version__,
        "export_keras": keras.__version__,
    }
