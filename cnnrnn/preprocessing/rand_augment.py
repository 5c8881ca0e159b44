"""RandAugment: two random operations on each image (Cubuk et al., arXiv 1909.13719).

Number and magnitude are the paper's for ResNet-50 on ImageNet: 2 operations at level 9 of 30. The
14 operations are the paper's, their ranges those of torchvision's RandAugment.

keras.layers.RandAugment is not used: it draws from a generator with state, which a resumed run
could not restore inside a pipeline, and it computes all of its operations for each image and keeps
the results of two, which takes more than ten times as long.
"""

import math

import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.preprocessing import random_keys

_OPERATIONS = 2
_LEVEL = 9 / 30
_FILL = 0.5  # gray, where an image was moved away

# At level 1:
_SHEAR = 0.3
_TRANSLATION = 150 / 331  # of the image's side
_ROTATION = math.radians(30)
_FACTOR = 0.9  # of brightness, color, contrast and sharpness: from 1 - 0.9 to 1 + 0.9
_POSTERIZED_BITS = 4  # taken from 8


def apply(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Changes an image by two operations, drawn by a key.

    Args:
        image: (299, 299, 3) float32 in [0, 1].
        key: (2,) int64.

    Returns:
        (299, 299, 3) float32 in [0, 1].
    """
    operation_key, sign_key = random_keys.split(key, 2)
    chosen = tf.random.stateless_uniform(
        (_OPERATIONS,), operation_key, 0, len(OPERATIONS), dtype=tf.int32
    )
    signs = tf.random.stateless_uniform((_OPERATIONS,), sign_key, 0, 2, dtype=tf.int32)
    levels = _LEVEL * tf.cast(2 * signs - 1, tf.float32)
    for number in range(_OPERATIONS):
        branches = [
            lambda image=image, level=levels[number], operation=operation: tf.ensure_shape(
                tf.clip_by_value(operation(image, level), 0.0, 1.0), image.shape
            )
            for operation in OPERATIONS
        ]
        image = tf.switch_case(chosen[number], branches)
    return image


# Each takes an image, (299, 299, 3) float32 in [0, 1], and a level, () float32: from -1 to 1.


def _identity(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return image


def _shear_x(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _transformed(image, [1.0, _SHEAR * level, 0.0, 1.0])


def _shear_y(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _transformed(image, [1.0, 0.0, _SHEAR * level, 1.0])


def _translate_x(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _transformed(image, [1.0, 0.0, 0.0, 1.0], (_TRANSLATION * level, 0.0))


def _translate_y(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _transformed(image, [1.0, 0.0, 0.0, 1.0], (0.0, _TRANSLATION * level))


def _rotate(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    cosine, sine = tf.cos(_ROTATION * level), tf.sin(_ROTATION * level)
    return _transformed(image, [cosine, -sine, sine, cosine])


def _brightness(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return (1.0 + _FACTOR * level) * image


def _color(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _blend(tf.image.rgb_to_grayscale(image), image, level)


def _contrast(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _blend(tf.reduce_mean(tf.image.rgb_to_grayscale(image)), image, level)


def _sharpness(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    smooth = (tf.nn.avg_pool2d(image[None], 3, 1, "SAME")[0] * 9.0 + 4.0 * image) / 13.0
    return _blend(smooth, image, level)


def _posterize(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    step = 2.0 ** tf.round(_POSTERIZED_BITS * tf.abs(level))
    return tf.floor(image * 255.0 / step) * step / 255.0


def _solarize(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return tf.where(image < 1.0 - tf.abs(level), image, 1.0 - image)


def _autocontrast(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    low, high = (reduce(image, (0, 1)) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, tf.math.divide_no_nan(image - low, high - low), image)


def _equalize(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Gives each channel a flat histogram, in steps of 8-bit pixels."""
    channels = []
    for values in tf.unstack(image, axis=-1):
        pixels = tf.cast(tf.round(values * 255.0), tf.int32)
        counts = tf.math.bincount(tf.reshape(pixels, (-1,)), minlength=256, maxlength=256)
        darker = tf.cumsum(tf.cast(counts, tf.float32), exclusive=True)
        most = tf.gather(darker, tf.reduce_max(pixels))  # so the brightest pixels become 1
        equalized = tf.gather(tf.math.divide_no_nan(darker, most), pixels)
        channels.append(tf.where(most > 0, equalized, values))
    return tf.stack(channels, axis=-1)


def _blend(other: tf.Tensor, image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """An image moved away from another, or towards it at negative levels."""
    return other + (1.0 + _FACTOR * level) * (image - other)


def _transformed(
    image: tf.Tensor,
    matrix: list[tf.Tensor | float],
    shift: tuple[tf.Tensor | float, ...] = (0.0, 0.0),
) -> tf.Tensor:
    """Moves the pixels of an image.

    Args:
        image: (299, 299, 3) float32.
        matrix: a, b, c, d: the pixel at (x, y) from the center becomes that at
            (a x + b y, c x + d y).
        shift: in x and y, added to these, as a share of the image's side.
    """
    a, b, c, d = matrix
    center = (shapes.IMAGE_SIZE - 1) / 2
    x = center * (1.0 - a - b) + shapes.IMAGE_SIZE * shift[0]
    y = center * (1.0 - c - d) + shapes.IMAGE_SIZE * shift[1]
    transform = tf.stack([a, b, x, c, d, y, 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=image.shape[:2],
        fill_value=_FILL,
        interpolation="BILINEAR",
    )[0]


OPERATIONS = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _color,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
