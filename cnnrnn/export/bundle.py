"""The folder that `export` writes.

EXPORT/
  saved_model/           image files -> class names; TensorFlow, TensorFlow Serving
  model.keras            plain Keras
  model.tflite           LiteRT, float32
  model_quantized.tflite LiteRT, 8-bit weights
  classes.txt            the class names in the order of the outputs, one per line
  README.md              model card: data, metrics, limits, how to use each file
  seal.json              manifest: checksums of the files, and the metadata
"""

import pathlib
import string
from typing import Any

import keras
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import shapes
from cnnrnn.export import keras_and_litert, saved_model
from cnnrnn.models import network as network_lib
from cnnrnn.runs import best_weights, manifest, run_folder
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import text as text_lib

_BOTH = (
    "with two branches: an Xception, and a two-layer LSTM that reads the image from top to bottom. "
    "Their features are {}, and a dense layer classifies the result"
)
_JOINED = {  # by --fusion
    "product": "multiplied",
    "sum": "added",
    "concatenation": "concatenated",
    "gated": "joined by a gate, CNN x (1 + RNN)",
}
_ONE_BRANCH = {  # by --fusion
    "cnn": "with one branch, an Xception; a dense layer classifies its features",
    "gain": "with one branch, an Xception; its features are scaled by trained constants, and a "
    "dense layer classifies them",
    "rnn": "with one branch, a two-layer LSTM that reads the image from top to bottom; a dense "
    "layer classifies its features",
}
_CARD = pathlib.Path(__file__).with_name("model_card.md")


def write(
    classifier: classifier_lib.Classifier,
    folder: pathlib.Path,
    config: config_lib.Config,
    metadata: dict[str, Any],
) -> None:
    """Writes all files but the manifest.

    Args:
        classifier: in float32.
        folder: an existing, empty folder.
        config: `top` and `max_megapixels` are used.
        metadata: from `describe`.
    """
    saved_model.write(
        classifier,
        folder / "saved_model",
        top=config.prediction.top_of_run,
        max_pixels=config.data.max_pixels,
        metadata=metadata,
    )
    model = keras_and_litert.plain_keras(classifier.network, classifier.preprocessing.image_size)
    model.save(folder / "model.keras")
    for name, quantized in (("model.tflite", False), ("model_quantized.tflite", True)):
        (folder / name).write_bytes(keras_and_litert.litert(model, quantized))
    names = "".join(f"{text_lib.one_line(name)}\n" for name in classifier.class_names)
    (folder / "classes.txt").write_text(names, encoding="utf-8")
    (folder / "README.md").write_text(_card(metadata, classifier.network), encoding="utf-8")


def _card(metadata: dict[str, Any], network: network_lib.Network) -> str:
    """The model card; says nothing of a branch that the network lacks."""
    cnn_row = cnn_input = ""
    maps = []
    if network.uses_cnn:
        cnn_row = (
            f"| image size of the CNN branch | {metadata['cnn_image_size']}, scaled inside |\n"
        )
        cnn_input = ", CNN input {0}x{0}".format(metadata["validation_image_size"])
        maps.append(f"`cam` (B, {metadata['explained']}, h, w), Grad-CAM of the CNN")
    if network.uses_rnn:
        maps.append(f"`timesteps` (B, {metadata['explained']}, 23), the saliency of the timesteps")
    parts = {"cnn_row": cnn_row, "cnn_input": cnn_input, "maps": ", and ".join(maps)}
    return string.Template(_CARD.read_text(encoding="utf-8")).substitute(metadata | parts)


def _network(fusion: str) -> str:
    """The network in words, after 'An image classifier of N classes'."""
    joined = _JOINED.get(fusion, f"joined ({fusion})")
    return _ONE_BRANCH.get(fusion) or _BOTH.format(joined)


def describe(
    folder: run_folder.RunFolder, classifier: classifier_lib.Classifier, config: config_lib.Config
) -> dict[str, Any]:
    """The metadata of an export, for its manifest, its model card and the SavedModel.

    Args:
        folder: the run.
        classifier: loaded from it.
        config: `top` and `max_megapixels` are used.

    Returns:
        JSON. "top" is the number of classes that the SavedModel returns for an image, "classes"
        the number of all classes.
    """
    best = classifier.best
    top = min(config.prediction.top_of_run, len(classifier.class_names))
    recorded = folder.manifest()
    trained = recorded.get(best.phase, {})
    dataset = trained.get("dataset", {})
    variant = classifier.network.variant
    return {
        "run": folder.root.resolve().name,
        "weights_sha256": best.sha256,
        "phase": best.phase,
        "epoch": best.epoch,
        "weights": best_weights.describe(best, recorded),
        "network": _network(variant.fusion),
        "loss": f"{best.validation.loss:.4f}",
        "top1": f"{best.validation.top1:.2%}",
        "top5": f"{best.validation.top5:.2%}",
        "validation_images": f"{best.validation.count:,}",
        "validation_image_size": folder.eval_image_size(best.phase),
        "training_images": f"{dataset.get('training_examples', 0):,}",
        "dataset": dataset.get("name", "unknown"),
        "fingerprint": dataset.get("fingerprint", "unknown"),
        "classes": len(classifier.class_names),
        "fusion": variant.fusion,
        "top": top,
        "explained": min(top, saved_model.EXPLAINED),
        "max_megapixels": f"{config.data.max_megapixels:.15g}",  # all digits that were given
        "resize_method": classifier.preprocessing.resize_method,
        "image_size": shapes.IMAGE_SIZE,
        "cnn_image_size": classifier.preprocessing.image_size,
        "git_commit": trained.get("git_commit") or "unknown",
        "tensorflow": trained.get("packages", {}).get("tensorflow", "unknown"),
        "precision": trained.get("precision", "unknown"),
        "export_git_commit": manifest.git_commit() or "unknown",
        "export_tensorflow": tf.__version__,
        "export_keras": keras.__version__,
    }
