"""Decoding, and the two inputs of the network: the RGB view and the gray sequence.

Training, evaluation and exported models all use this module, so a served model preprocesses images
exactly as training did.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.preprocessing import exif

# Increase it when the same image gives another RGB view (except for rounding): it is part of the
# feature cache's key.
RGB_VERSION = 2


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP, GIF (first frame) or static WebP into 8-bit RGB.

    Gray, palette, CMYK and 16-bit images become RGB; an alpha channel is dropped. The exceptions
    are a WebP with alpha, which fails, and a BMP with a palette, whose colors would be wrong:
    `image_header` finds both. The format is detected from the bytes, not from a file name. A JPEG
    is rotated as its EXIF orientation says.

    Args:
        encoded: () string.

    Returns:
        (height, width, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: the image is damaged or of another format.
    """
    # Both arguments are essential: an animated WebP decoded with channels=0 corrupts the heap, and
    # an expanded GIF has four dimensions.
    image = tf.io.decode_image(encoded, channels=shapes.CHANNELS, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, shapes.CHANNELS))
    return exif.upright(image, exif.orientation(encoded))


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a decoded image becomes the inputs of both branches.

    Attributes:
        resize_method: one of `settings.data.RESIZE_METHODS`.
        image_size: height and width of the CNN's input, S. Sizes below 299 are scaled down from
            the RGB view of 299x299, so that both branches see the same image.
    """

    resize_method: str = "bilinear"
    image_size: int = shapes.IMAGE_SIZE

    def rgb(self, image: tf.Tensor) -> tf.Tensor:
        """The RGB view: resized to 299x299, scaled to [-1, 1] as in Xception's training.

        Args:
            image: (height, width, 3) uint8.

        Returns:
            (299, 299, 3) float32; bicubic and Lanczos can overshoot [-1, 1] slightly at edges.
        """
        # Scaling and resizing commute, so the smaller image is scaled: 25 % more images/s at 64x64.
        view = tf.cond(
            _is_small(image),
            lambda: self._resize(_scale(image)),
            lambda: _scale(self._resize(image)),
        )
        return tf.ensure_shape(view, (shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS))

    def sequence(self, image: tf.Tensor) -> tf.Tensor:
        """The RNN's input: `sequence_of(rgb(image))` at two thirds of the cost.

        The mean over the channels and the resize commute, because both are linear or, with
        'nearest', pick single pixels. So the two are equal up to rounding.

        Args:
            image: (height, width, 3) uint8.

        Returns:
            (23, 3887) float32.
        """
        gray = tf.cond(
            _is_small(image),
            lambda: self._resize(_scale(_mean(tf.cast(image, tf.float32)))),
            lambda: _scale(_mean(tf.cast(self._resize(image), tf.float32))),
        )
        return _as_sequence(gray)

    def inputs(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Both inputs of the network.

        Args:
            image: (height, width, 3) uint8.

        Returns:
            {"image": (S, S, 3) float32, "sequence": (23, 3887) float32}.
        """
        return self.inputs_of(self.rgb(image))

    def inputs_of(self, rgb: tf.Tensor) -> dict[str, tf.Tensor]:
        """Both inputs of the network, from the RGB view.

        Args:
            rgb: (299, 299, 3) float32, scaled.

        Returns:
            See `inputs`.
        """
        return {"image": self._cnn_view(rgb), "sequence": sequence_of(rgb)}

    def _cnn_view(self, rgb: tf.Tensor) -> tf.Tensor:
        if self.image_size == shapes.IMAGE_SIZE:
            return rgb
        return _antialiased(rgb, (self.image_size, self.image_size))

    def _resize(self, image: tf.Tensor) -> tf.Tensor:
        size = (shapes.IMAGE_SIZE, shapes.IMAGE_SIZE)
        return tf.image.resize(image, size, method=self.resize_method)


def sequence_of(rgb: tf.Tensor) -> tf.Tensor:
    """The gray sequence of an RGB view: 23 timesteps of thirteen pixel rows each.

    Args:
        rgb: (299, 299, 3) float32, scaled.

    Returns:
        (23, 3887) float32.
    """
    return _as_sequence(_mean(rgb))


def interpolation(size: int) -> np.ndarray:
    """The weights of the scaling of the RGB view along one axis, (size, 299) float32.

    The CNN's view, as a product: `weights @ rgb @ transposed weights` for each channel.
    """
    identity = tf.eye(shapes.IMAGE_SIZE)[..., tf.newaxis]
    return _antialiased(identity, (size, shapes.IMAGE_SIZE))[..., 0].numpy()


def _antialiased(rgb: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """A smaller image. Without antialiasing it would be made of single pixels of the larger one."""
    return tf.image.resize(rgb, size, method="bilinear", antialias=True)


def _is_small(image: tf.Tensor) -> tf.Tensor:
    """Whether an image has fewer pixels than its resized view."""
    return tf.reduce_prod(tf.shape(image)[:2]) < shapes.IMAGE_SIZE**2


def _scale(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float32) / 127.5 - 1.0


def _mean(rgb: tf.Tensor) -> tf.Tensor:
    """(height, width, 3) -> (height, width, 1). reduce_mean takes twice as long on this axis."""
    return (rgb[..., 0:1] + rgb[..., 1:2] + rgb[..., 2:3]) / 3.0


def _as_sequence(gray: tf.Tensor) -> tf.Tensor:
    return tf.reshape(gray, (shapes.TIMESTEPS, shapes.STEP_FEATURES))
