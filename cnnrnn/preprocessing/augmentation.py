"""Augmentation: random changes of a training image, as a pure function of a key.

In two stages, of which each image passes both: `geometry` on the decoded image, and `colors` on its
RGB view, from which both branches' inputs are made. So the branches see the same augmented image.

'flip': left to right, half of the images.
'standard': also a crop of 35 % to 100 % of the area with an aspect ratio from 3:4 to 4:3 (Szegedy
    et al., arXiv 1409.4842, whose smallest crop of 8 % is for training of hundreds of epochs; 35 %
    is fastai's for short ones), and changes of brightness by up to 32 / 255 (as TensorFlow's own
    preprocessing for Inception) and of contrast and saturation by factors from 0.6 to 1.4 (He et
    al., arXiv 1812.01187).
'strong': also RandAugment (see `rand_augment`) and random erasing (Zhong et al., arXiv 1708.04896)
    of a quarter of the images, as timm's recipes: a rectangle of 2 % to 33 % of the area with an
    aspect ratio from 3:10 to 10:3 becomes gray.
"""

import dataclasses
import math

import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.preprocessing import rand_augment, random_keys

# Increase it when the same key gives another image: it is part of the feature cache's key.
VERSION = 1

_CROP_AREA = (0.35, 1.0)
_CROP_ASPECT_RATIO = (3 / 4, 4 / 3)
_BRIGHTNESS = 32 / 255
_FACTORS = (0.6, 1.4)  # of contrast and saturation
_ERASED_SHARE = 0.25  # of the images
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT_RATIO = (0.3, 10 / 3)
_GRAY = 0.0  # in an RGB view


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The changes that --augmentation asks for.

    Attributes:
        policy: 'none', 'flip', 'standard' or 'strong'.
    """

    policy: str = "none"

    @property
    def changes_anything(self) -> bool:
        return self.policy != "none"

    @property
    def changes_colors(self) -> bool:
        """Whether `colors` is to be called."""
        return self.policy in ("standard", "strong")

    def geometry(self, image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Crops and flips; called if `changes_anything`.

        Args:
            image: (height, width, 3) uint8.
            key: (2,) int64; see `random_keys`.

        Returns:
            (height, width, 3) uint8, not larger.
        """
        flip_key, crop_key = random_keys.split(_stage_key(key, 0), 2)
        if self.policy != "flip":
            image = _cropped(image, crop_key)
        return tf.image.stateless_random_flip_left_right(image, flip_key)

    def colors(self, rgb: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Changes colors, if `changes_colors`; 'strong' also moves pixels and erases some.

        Args:
            rgb: (299, 299, 3) float32, scaled to [-1, 1].
            key: that of `geometry`.

        Returns:
            (299, 299, 3) float32 in [-1, 1].
        """
        keys = random_keys.split(_stage_key(key, 1), 5)
        image = tf.clip_by_value(0.5 * rgb + 0.5, 0.0, 1.0)
        image = tf.image.stateless_random_saturation(image, *_FACTORS, keys[0])
        image = tf.image.stateless_random_contrast(image, *_FACTORS, keys[1])
        image = tf.image.stateless_random_brightness(image, _BRIGHTNESS, keys[2])
        image = tf.clip_by_value(image, 0.0, 1.0)
        if self.policy == "strong":
            image = rand_augment.apply(image, keys[3])
        rgb = 2.0 * image - 1.0
        return _erased(rgb, keys[4]) if self.policy == "strong" else rgb


def _stage_key(key: tf.Tensor, stage: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(key, tf.constant(stage, tf.int64))


def _cropped(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Cuts a random rectangle out of an image; very narrow images can stay whole."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=key,
        min_object_covered=0.0,
        aspect_ratio_range=_CROP_ASPECT_RATIO,
        area_range=_CROP_AREA,
        max_attempts=10,
    )
    return tf.ensure_shape(tf.slice(image, begin, size), (None, None, shapes.CHANNELS))


def _erased(rgb: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Makes a random rectangle of some RGB views gray; which, and where, depends on the key."""
    chance, area, ratio, top, left = tf.unstack(tf.random.stateless_uniform((5,), key))
    area = _ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0])
    low, high = (math.log(each) for each in _ERASED_ASPECT_RATIO)
    ratio = tf.exp(low + ratio * (high - low))
    height, width = (tf.minimum(tf.sqrt(each), 1.0) for each in (area * ratio, area / ratio))
    pixels = (tf.range(shapes.IMAGE_SIZE, dtype=tf.float32) + 0.5) / shapes.IMAGE_SIZE

    def inside(start: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """(299,) bool: which rows or columns belong to the rectangle."""
        offset = pixels - start * (1.0 - length)
        return (offset >= 0.0) & (offset < length)

    erased = inside(top, height)[:, None] & inside(left, width)[None, :]
    return tf.where((chance < _ERASED_SHARE) & erased[..., None], _GRAY, rgb)
