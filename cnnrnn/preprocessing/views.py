"""From encoded bytes to what the two branches read: pure TensorFlow ops, the only copy there is.

Training, evaluation and any exported model call these, so what is served is what was trained.
"""

import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.preprocessing import exif

# To be counted up when the same bytes give another RGB view (rounding apart): features kept on
# disk depend on it.
RGB_VIEW_VERSION = 2


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one JPEG, PNG, BMP, GIF (its first frame) or static WebP into 8-bit RGB.

    Gray, palette, CMYK and 16-bit images become RGB and an alpha channel is dropped. The format
    is recognised from the bytes, whatever the file is called. A JPEG is turned upright as its EXIF
    says.

    Args:
        encoded: () string.

    Returns:
        (height, width, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: when run on bytes that are no such image.
    """
    # channels=3 and expand_animations=False are not matters of taste: an animated WebP decoded
    # with channels=0 corrupts the heap, and an expanded GIF has a rank of four.
    image = tf.io.decode_image(encoded, channels=shapes.CHANNELS, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, shapes.CHANNELS))
    return exif.upright(image, exif.orientation(encoded))


def rgb_view(image: tf.Tensor, resize_method: str) -> tf.Tensor:
    """Resizes to 299x299 and scales to [-1, 1], as Xception was trained.

    Args:
        image: (height, width, 3) uint8.
        resize_method: one of `config.RESIZE_METHODS`.

    Returns:
        (299, 299, 3) float32; bicubic and Lanczos can overshoot [-1, 1] slightly at edges.
    """
    # Scaling and resizing commute, so the smaller image is scaled: a quarter more images a
    # second where they are of 64x64.
    view = tf.cond(
        _is_small(image),
        lambda: _resize(_scale(image), resize_method),
        lambda: _scale(_resize(image, resize_method)),
    )
    return tf.ensure_shape(view, (shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS))


def gray_sequence(rgb: tf.Tensor) -> tf.Tensor:
    """The image as the RNN reads it: 23 timesteps, each of thirteen gray pixel rows.

    Args:
        rgb: (299, 299, 3) float32, scaled.

    Returns:
        (23, 3887) float32.
    """
    return _as_sequence(_mean(rgb))


def gray_view(image: tf.Tensor, resize_method: str) -> tf.Tensor:
    """`gray_sequence(rgb_view(image))` without making the RGB view: a third of the work.

    The mean over the colours and the resize commute, since both are linear, and each pixel of
    'nearest' is one pixel of the original. So the two agree up to rounding.

    Args:
        image: (height, width, 3) uint8.
        resize_method: one of `config.RESIZE_METHODS`.

    Returns:
        (23, 3887) float32.
    """
    gray = tf.cond(
        _is_small(image),
        lambda: _resize(_scale(_mean(tf.cast(image, tf.float32))), resize_method),
        lambda: _scale(_mean(tf.cast(_resize(image, resize_method), tf.float32))),
    )
    return _as_sequence(gray)


def _is_small(image: tf.Tensor) -> tf.Tensor:
    """Whether an image has fewer pixels than its view."""
    return tf.reduce_prod(tf.shape(image)[:2]) < shapes.IMAGE_SIZE**2


def _resize(image: tf.Tensor, method: str) -> tf.Tensor:
    return tf.image.resize(image, (shapes.IMAGE_SIZE, shapes.IMAGE_SIZE), method=method)


def _scale(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float32) / 127.5 - 1.0


def _mean(rgb: tf.Tensor) -> tf.Tensor:
    """(height, width, 3) -> (height, width, 1). Eigen takes twice as long over an axis of three."""
    return (rgb[..., 0:1] + rgb[..., 1:2] + rgb[..., 2:3]) / 3.0


def _as_sequence(gray: tf.Tensor) -> tf.Tensor:
    return tf.reshape(gray, (shapes.TIMESTEPS, shapes.STEP_FEATURES))
