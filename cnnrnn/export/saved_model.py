"""The trained network as a TensorFlow SavedModel: image files -> class names.

It contains decoding, preprocessing, the network and the class names, and runs in TensorFlow or
TensorFlow Serving without this package. Signatures, for a batch of B images:

  serving_default   image_bytes (B,) string: JPEG, PNG, BMP, GIF or static WebP
  explained         image_bytes (B,) string
  decoded           images (B, height, width, 3) uint8
  about             no inputs

The first three return the k most likely classes, most likely first: "classes" (B, k) string and
"probabilities" (B, k) float32. Those that take files also return "error" (B,) string, empty if the
image was decoded; an image that cannot be decoded has empty classes and probabilities of 0, and
does not affect the others. B may be 0. "explained" also returns attribution maps of the first e =
min(k, 3) classes (see `models.attribution`), from 0 to 1: "cam" (B, e, h, w) and "timesteps" (B, e,
23). A network with one branch has the maps of that branch only. "about" returns all "class_names"
(classes,) string, by label, and "metadata" () string, a JSON object (see `bundle.describe`).
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.models import attribution
from cnnrnn.preprocessing import image_header
from cnnrnn.runs import classifier as classifier_lib

EXPLAINED = 3  # classes of an image; each takes a backward pass through both branches
_ERROR = (
    "is not an image that can be decoded, has too many pixels, or is of an unsupported kind, such "
    "as a WebP with transparency or a BMP with a palette"
)
_DECODING_THREADS = 4  # fixed, as the serving machine is not known


def write(
    classifier: classifier_lib.Classifier,
    folder: pathlib.Path,
    *,
    top: int,
    max_pixels: int,
    metadata: dict[str, Any],
) -> None:
    """Writes the SavedModel.

    Args:
        classifier: in float32.
        folder: must not exist.
        top: k, the number of classes returned for an image.
        max_pixels: images with more pixels, according to their header, are not decoded.
        metadata: JSON.
    """

    def about() -> dict[str, tf.Tensor]:
        names = tf.constant(classifier.class_names)
        return {"class_names": names, "metadata": tf.constant(json.dumps(metadata))}

    predictor = _Predictor(classifier, top, max_pixels)
    files = tf.TensorSpec((None,), tf.string, name="image_bytes")
    decoded = tf.TensorSpec((None, None, None, shapes.CHANNELS), tf.uint8, name="images")
    signatures = {
        "serving_default": tf.function(predictor.predict_files, input_signature=[files]),
        "explained": tf.function(predictor.explain_files, input_signature=[files]),
        "decoded": tf.function(predictor.predict_decoded, input_signature=[decoded]),
        "about": tf.function(about, input_signature=[]),
    }
    save(folder, classifier.network.model.weights, signatures)


class _Predictor:
    """The computations of the signatures."""

    def __init__(self, classifier: classifier_lib.Classifier, top: int, max_pixels: int):
        self._classifier = classifier
        self._explainer = attribution.Explainer(classifier.network)
        self._names = tf.constant(classifier.class_names)
        self._top = min(top, len(classifier.class_names))
        self._max_pixels = max_pixels
        self._valid_image = tf.io.encode_png(tf.zeros((1, 1, 3), tf.uint8)).numpy()

    def predict_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._decode_and(self._predict, image_bytes)

    def explain_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._decode_and(self._explain, image_bytes)

    def predict_decoded(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        # The network fails on an empty batch, so it gets a black image then.
        black = tf.zeros(tf.concat([[1], tf.shape(images)[1:]], 0), tf.uint8)
        padded = tf.concat([images, black], 0)[: tf.maximum(count, 1)]
        views = tf.map_fn(
            self._classifier.views_of, padded, fn_output_signature=self._classifier.view_specs
        )
        return {name: values[:count] for name, values in self._predict(views).items()}

    def _predict(self, views: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities, labels = self._most_likely(views)
        return {"classes": tf.gather(self._names, labels), "probabilities": probabilities}

    def _explain(self, views: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities, labels = self._most_likely(views)
        explained = tf.unstack(labels[:, :EXPLAINED], axis=1)
        return {
            "classes": tf.gather(self._names, labels),
            "probabilities": probabilities,
            **self._explainer.maps(views, explained),
        }

    def _most_likely(self, views: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities and labels of the most likely classes, (B, k) each."""
        return tf.math.top_k(self._classifier.probabilities(views), self._top)

    def _decode_and(
        self,
        compute: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
        image_bytes: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Decodes files and computes the outputs of a signature.

        Args:
            compute: views of B images -> outputs, (B, ...) each.
            image_bytes: (B,) string.

        Returns:
            The outputs, with "" or 0 for images that cannot be decoded, and "error".
        """
        count = tf.shape(image_bytes, out_type=tf.int64)[0]
        # A valid image follows the others, so that the batch of decoded ones is never empty.
        decoded = (
            tf.data.Dataset.from_tensor_slices(tf.concat([image_bytes, [self._valid_image]], 0))
            .enumerate()
            .map(
                lambda index, encoded: (index, self._views(encoded)),
                num_parallel_calls=_DECODING_THREADS,
            )
            .ignore_errors(log_warning=False)
            .batch(count + 1)
            .with_options(_options())
        )
        indices, views = decoded.get_single_element()
        padded = tf.maximum(count, 1)  # the network fails on an empty batch

        def at_indices(values: tf.Tensor) -> tf.Tensor:
            """Values of the decoded images at the images' indices, zeros elsewhere."""
            shape = tf.concat([[count + 1], tf.shape(values, out_type=tf.int64)[1:]], 0)
            scattered = tf.scatter_nd(indices[:, tf.newaxis], values, shape)[:padded]
            return tf.ensure_shape(scattered, (None, *values.shape[1:]))

        is_decoded = at_indices(tf.ones_like(indices)) > 0  # (max(B, 1),)
        outputs = compute({name: at_indices(view) for name, view in views.items()})
        for name, values in outputs.items():
            blank = "" if values.dtype == tf.string else 0.0
            shape = tf.concat([[padded], tf.ones(values.shape.rank - 1, tf.int64)], 0)
            outputs[name] = tf.where(tf.reshape(is_decoded, shape), values, blank)[:count]
        return outputs | {"error": tf.where(is_decoded, "", _ERROR)[:count]}

    def _views(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classifier.views(image_header.limited(encoded, self._max_pixels))


def save(
    folder: pathlib.Path, weights: Sequence[keras.Variable], signatures: dict[str, Callable]
) -> None:
    """Writes functions as a SavedModel.

    `keras.export.ExportArchive` does the same, but writes each weight twice (2 x 413 MB).

    Args:
        folder: must not exist.
        weights: those that the functions use.
        signatures: tf.functions by name, each with an input signature.
    """
    module = tf.Module()
    module.weights = [weight.value for weight in weights]
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _options() -> tf.data.Options:
    """Disables optimization of the pipeline: for one batch it takes longer than decoding."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    return options
