"""The trained network as a TensorFlow SavedModel that takes a picture's file and names classes.

It holds all of it: decoding, both views, the network, the class names. Plain TensorFlow, or
TensorFlow Serving, runs it without this package. Signatures, for a batch of B:

  serving_default   image_bytes (B,) string: JPEG, PNG, BMP, GIF or static WebP
  decoded           images (B, height, width, 3) uint8
  explained         image_bytes (B,) string

All return "classes" (B, k) string and "probabilities" (B, k) float32, the k most likely, most
likely first; those that take files also "error" (B,) string, empty for a picture that was read. A
picture that cannot be read marks its own row: no classes, probabilities of 0. A batch of none is
answered. "explained" also returns where each branch found each class (see `explanations`): "cam"
(B, k, h, w) and "bands" (B, k, 23), from 0 to 1.
"""

import pathlib

import keras
import tensorflow as tf

from cnnrnn import explanations, picture_header, shapes, trained

_ERROR = "is no picture that can be read, or one of too many pixels"
_PARALLEL = 4  # pictures decoded at a time; the machine that serves is not known here
_VIEWS = {
    "image": tf.TensorSpec((shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS)),
    "rows": tf.TensorSpec((shapes.TIMESTEPS, shapes.STEP_FEATURES)),
}


def write(
    classifier: trained.Classifier, folder: pathlib.Path, *, top: int, max_pixels: int
) -> None:
    """Writes the SavedModel.

    Args:
        classifier: what to write, in float32.
        folder: does not exist yet.
        top: k.
        max_pixels: a picture whose header says more is not decoded.
    """
    names = tf.constant(classifier.class_names)
    k = min(top, len(classifier.class_names))
    limit = tf.constant(max_pixels, tf.int64)
    stand_in = tf.io.encode_png(tf.zeros((1, 1, 3), tf.uint8)).numpy()

    explainer = explanations.Explainer(classifier.network)

    def named(views: dict[str, tf.Tensor], explained: bool = False) -> dict[str, tf.Tensor]:
        probabilities, labels = tf.math.top_k(classifier.probabilities(views), k)
        outputs = {"classes": tf.gather(names, labels), "probabilities": probabilities}
        if explained:
            maps = [explainer.maps(views, labels[:, rank]) for rank in range(k)]
            for name, of_ranks in zip(("cam", "bands"), zip(*maps, strict=True), strict=True):
                outputs[name] = tf.stack(of_ranks, axis=1)
        return outputs

    def guarded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = picture_header.pixels(encoded)
        with tf.control_dependencies([tf.debugging.assert_less_equal(pixels, limit)]):
            return classifier.views(tf.identity(encoded))

    def of_bytes(image_bytes: tf.Tensor, explained: bool = False) -> dict[str, tf.Tensor]:
        count = tf.shape(image_bytes, out_type=tf.int64)[0]
        # One that is sure to be read follows the pictures, so that there is a batch to take.
        pictures = tf.data.Dataset.from_tensor_slices(tf.concat([image_bytes, [stand_in]], 0))
        read = (
            pictures.enumerate()
            .map(lambda row, encoded: (row, guarded(encoded)), num_parallel_calls=_PARALLEL)
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
        outputs = named({name: spread(view) for name, view in views.items()}, explained)
        for name, values in outputs.items():
            nothing = "" if values.dtype == tf.string else 0.0
            read = tf.reshape(
                was_read, tf.concat([[kept], tf.ones(values.shape.rank - 1, tf.int64)], 0)
            )
            outputs[name] = tf.where(read, values, nothing)[:count]
        return outputs | {"error": tf.where(was_read, "", _ERROR)[:count]}

    def of_decoded(images: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        one = tf.zeros(tf.concat([[1], tf.shape(images)[1:]], 0), tf.uint8)
        kept = tf.concat([images, one], 0)[: tf.maximum(count, 1)]
        views = tf.map_fn(classifier.views_of, kept, fn_output_signature=_VIEWS)
        return {name: values[:count] for name, values in named(views).items()}

    archive = keras.export.ExportArchive()
    archive.track(classifier.network.model)
    files = [tf.TensorSpec((None,), tf.string, name="image_bytes")]
    archive.add_endpoint("serving_default", lambda image_bytes: of_bytes(image_bytes), files)
    archive.add_endpoint("explained", lambda image_bytes: of_bytes(image_bytes, True), files)
    archive.add_endpoint(
        "decoded",
        of_decoded,
        [tf.TensorSpec((None, None, None, shapes.CHANNELS), tf.uint8, name="images")],
    )
    archive.write_out(folder, verbose=False)


def _options() -> tf.data.Options:
    """A pipeline of one batch is not worth optimizing: that took longer than decoding it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    return options
