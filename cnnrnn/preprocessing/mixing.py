"""Mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899).

The images of a batch are mixed in pairs of neighbors: 0 with 1, 2 with 3 and so on; the last of a
batch of odd size stays as it is. What is drawn for an image is a pure function of its key.

Each image of a pair is once the one that counts more, with a share of at least a half, and once its
partner, with a share of its own. That is the original mixing, up to the order of the pair: the
distribution of the shares, Beta(a, a), is symmetric.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.preprocessing import random_keys

Batch = dict[str, tf.Tensor]
_DRAWS = ("is_mixup", "mixup_share", "rectangle")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """The mixing that --mixup and --cutmix ask for.

    Attributes:
        mixup: a, for Mixup's shares from Beta(a, a); 0: no Mixup.
        cutmix: the same for CutMix.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def is_on(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, key: tf.Tensor) -> Batch:
        """Draws how an image is mixed.

        Args:
            key: (2,) int64; see `random_keys`.

        Returns:
            What `apply` expects of each image of a batch.
        """
        choice_key, share_key, place_key = random_keys.split(key, 3)
        choice = tf.random.stateless_uniform((), choice_key) < 0.5
        share = _beta(self.mixup, share_key) if self.mixup else tf.constant(1.0)
        whole = tf.constant([0.0, 1.0, 0.0, 1.0])
        rectangle = _rectangle(_beta(self.cutmix, share_key), place_key) if self.cutmix else whole
        is_mixup = choice if self.mixup and self.cutmix else tf.constant(self.mixup > 0)
        values = (is_mixup, tf.maximum(share, 1.0 - share), rectangle)
        return dict(zip(_DRAWS, values, strict=True))

    def apply(self, batch: Batch) -> Batch:
        """Mixes the images of a batch.

        Args:
            batch: of `input_pipeline`, with what `draw` drew for each image.

        Returns:
            The batch with mixed "image" and "sequence", "other_label" (B,) int64 and "share" (B,)
            float32: the label counts with `share`, from 0.5 to 1, the other one with the rest. A
            rectangle's share is its share of the area, at any size of the image.
        """
        is_mixup, share, rectangle = (batch[name] for name in _DRAWS)
        batch = {name: value for name, value in batch.items() if name not in _DRAWS}
        size = batch["label"].shape[0]
        numbers = np.arange(size)
        partners = np.where(numbers ^ 1 < size, numbers ^ 1, numbers)
        is_mixup = tf.gather(is_mixup, numbers & ~1)  # the pair's first image decides
        # An image's weight in each pixel is `outside`, and in the rectangle `inside`.
        area = (rectangle[:, 1] - rectangle[:, 0]) * (rectangle[:, 3] - rectangle[:, 2])
        is_in_rectangle = tf.cast(area > 0.5, tf.float32)
        outside = tf.where(is_mixup, share, 1.0 - is_in_rectangle)
        inside = tf.where(is_mixup, share, is_in_rectangle)

        def mixed(images: tf.Tensor) -> tf.Tensor:
            """(B, S, S, C) -> (B, S, S, C)."""
            weight = outside[:, None, None, None]
            if self.cutmix:
                weight += (inside - outside)[:, None, None, None] * _coverage(
                    rectangle, images.shape[1]
                )
            return weight * images + (1.0 - weight) * tf.gather(images, partners)

        gray = (size, shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, 1)
        sequence = mixed(tf.reshape(batch["sequence"], gray))
        if "image" in batch:  # else the network has no CNN
            batch["image"] = mixed(batch["image"])
        return {
            **batch,
            "sequence": tf.reshape(sequence, batch["sequence"].shape),
            "other_label": tf.gather(batch["label"], partners),
            "share": outside + (inside - outside) * area,
        }


def _beta(concentration: float, key: tf.Tensor) -> tf.Tensor:
    """A draw from Beta(a, a), () float32: x / (x + y) of x and y from Gamma(a, 1).

    TensorFlow rounds x and y up to the smallest number, so that for a below 0.01 both are often
    equal. Gamma(a + 1, 1) times U ** (1 / a) has the same distribution, and a logarithm.
    """
    gamma_key, uniform_key = random_keys.split(key, 2)
    a = tf.constant(concentration, tf.float64)
    gamma = tf.random.stateless_gamma((2,), gamma_key, a + 1.0, dtype=tf.float64)
    uniform = 1.0 - tf.random.stateless_uniform((2,), uniform_key, dtype=tf.float64)  # not 0
    logarithms = tf.math.log(gamma) + tf.math.log(uniform) / a
    return tf.cast(tf.sigmoid(logarithms[0] - logarithms[1]), tf.float32)


def _rectangle(share: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """CutMix's rectangle: of the image's shape, around any of its points, cut off at its edges.

    Args:
        share: () float32, of the area outside of it, if nothing is cut off.
        key: (2,) int64.

    Returns:
        (4,) float32: top, bottom, left and right, from 0 to 1.
    """
    side = tf.sqrt(1.0 - share)
    y, x = tf.unstack(tf.random.stateless_uniform((2,), key))
    edges = tf.stack([y - side / 2, y + side / 2, x - side / 2, x + side / 2])
    return tf.clip_by_value(edges, 0.0, 1.0)


def _coverage(rectangle: tf.Tensor, size: int) -> tf.Tensor:
    """The share of each pixel that is in a rectangle; pixels at its edges are partly.

    Args:
        rectangle: (B, 4); see `_rectangle`.
        size: height and width of the images in pixels, S.

    Returns:
        (B, S, S, 1) float32, on average the rectangle's area.
    """
    pixels = tf.range(size, dtype=tf.float32)
    edges = rectangle[..., None] * size - pixels  # (B, 4, S)
    covered = tf.clip_by_value(edges, 0.0, 1.0)
    rows, columns = covered[:, 1] - covered[:, 0], covered[:, 3] - covered[:, 2]
    return rows[:, :, None, None] * columns[:, None, :, None]
