"""The trained network as a TensorFlow SavedModel that takes an image's file and names classes.

It holds all of it: decoding, both views, the network, the class names. Plain TensorFlow, or
TensorFlow Serving, runs it without this package. Signatures, for a batch of B:

  serving_default   image_bytes (B,) string: JPEG, PNG, BMP, GIF or static WebP
  decoded           images (B, height, width, 3) uint8
  explained         image_bytes (B,) string
  about             nothing

The first three return "classes" (B, k) string and "probabilities" (B, k) float32, the k most
likely, most likely first; those that take files also "error" (B,) string, empty for an image that
was read. An image that cannot be read marks its own row: no classes, probabilities of 0. A batch
of none is answered. "about" returns all "class_names" (classes,) string, by label, and "notes" ()
string, a JSON object of what made the model. "explained" also returns where each branch found each
class (see `explanations`): "cam" (B, k, h, w) and "timesteps" (B, k, 23), from 0 to 1.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.models import attribution
from cnnrnn.preprocessing import image_header
from cnnrnn.runs import classifier as classifier_lib

_ERROR = "is no image that can be read, or one of too many pixels"
_PARALLEL = 4  # images decoded at a time; the machine that serves is not known here


def write(
    classifier: classifier_lib.Classifier,
    folder: pathlib.Path,
    *,
    top: int,
    max_pixels: int,
    notes: dict[str, Any],
) -> None:
    """Writes the SavedModel.

    Args:
        classifier: what to write, in float32.
        folder: does not exist yet.
        top: k.
        max_pixels: an image whose header says more is not decoded.
        notes: JSON, what made it.
    """

    def about() -> dict[str, tf.Tensor]:
        names = tf.constant(classifier.class_names)
        return {"class_names": names, "notes": tf.constant(json.dumps(notes))}

    functions = _Functions(classifier, top, max_pixels)
    files = tf.TensorSpec((None,), tf.string, name="image_bytes")
    decoded = tf.TensorSpec((None, None, None, shapes.CHANNELS), tf.uint8, name="images")
    signatures = {
        "serving_default": tf.function(functions.of_files, input_signature=[files]),
        "explained": tf.function(functions.of_files_explained, input_signature=[files]),
        "decoded": tf.function(functions.of_decoded, input_signature=[decoded]),
        "about": tf.function(about, input_signature=[]),
    }
    save(folder, classifier.network.model, signatures)


class _Functions:
    """What the signatures compute."""

    def __init__(self, classifier: classifier_lib.Classifier, top: int, max_pixels: int):
        self._classifier = classifier
        self._explainer = attribution.Explainer(classifier.network)
        self._names = tf.constant(classifier.class_names)
        self._top = min(top, len(classifier.class_names))
        self._max_pixels = max_pixels
        self._stand_in = tf.io.encode_png(tf.zeros((1, 1, 3), tf.uint8)).numpy()

    def of_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._of_files(image_bytes, self._named)

    def of_files_explained(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._of_files(image_bytes, self._explained)

    def of_decoded(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        one = tf.zeros(tf.concat([[1], tf.shape(images)[1:]], 0), tf.uint8)
        kept = tf.concat([images, one], 0)[: tf.maximum(count, 1)]
        views = tf.map_fn(self._classifier.views_of, kept, fn_output_signature=classifier_lib.VIEWS)
        return {name: values[:count] for name, values in self._named(views).items()}

    def _named(self, views: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._names_of(*self._most_likely(views))

    def _explained(self, views: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities, labels = self._most_likely(views)
        cams, timesteps = self._explainer.maps(views, tf.unstack(labels, axis=1))
        return self._names_of(probabilities, labels) | {"cam": cams, "timesteps": timesteps}

    def _most_likely(self, views: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities and labels, (B, k) each."""
        return tf.math.top_k(self._classifier.probabilities(views), self._top)

    def _names_of(self, probabilities: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"classes": tf.gather(self._names, labels), "probabilities": probabilities}

    def _of_files(
        self,
        image_bytes: tf.Tensor,
        answer: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
    ) -> dict[str, tf.Tensor]:
        """Answers the images that can be read, each in its row, and marks the others."""
        count = tf.shape(image_bytes, out_type=tf.int64)[0]
        # One that is sure to be read follows the images, so that there is a batch to take.
        images = tf.concat([image_bytes, [self._stand_in]], 0)
        read = (
            tf.data.Dataset.from_tensor_slices(images)
            .enumerate()
            .map(lambda row, file: (row, self._views(file)), num_parallel_calls=_PARALLEL)
            .ignore_errors(log_warning=False)
            .batch(count + 1)
            .with_options(_options())
        )
        rows, views = read.get_single_element()
        kept = tf.maximum(count, 1)

        def spread(values: tf.Tensor) -> tf.Tensor:
            """Puts what was read into its rows; zeros elsewhere."""
            shape = tf.concat([[count + 1], tf.shape(values, out_type=tf.int64)[1:]], 0)
            spread = tf.scatter_nd(rows[:, tf.newaxis], values, shape)[:kept]
            return tf.ensure_shape(spread, (None, *values.shape[1:]))

        was_read = spread(tf.ones_like(rows)) > 0
        outputs = answer({name: spread(view) for name, view in views.items()})
        for name, values in outputs.items():
            nothing = "" if values.dtype == tf.string else 0.0
            read = tf.reshape(
                was_read, tf.concat([[kept], tf.ones(values.shape.rank - 1, tf.int64)], 0)
            )
            outputs[name] = tf.where(read, values, nothing)[:count]
        return outputs | {"error": tf.where(was_read, "", _ERROR)[:count]}

    def _views(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classifier.views(image_header.limited(encoded, self._max_pixels))


def save(folder: pathlib.Path, model: keras.Model, signatures: dict[str, Callable]) -> None:
    """Writes functions of a model's weights as a SavedModel.

    `keras.export.ExportArchive` does the same and writes each weight twice, in 2 x 413 MB.

    Args:
        folder: does not exist yet.
        model: whose weights the functions use.
        signatures: tf.functions by name, with an input signature each.
    """
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _options() -> tf.data.Options:
    """A pipeline of one batch is not worth optimizing: that took longer than decoding it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    return options
