"""Thumbnails of inputs and explanations, as JPEGs."""

import io

import matplotlib
import numpy as np
import PIL.Image

from cnnrnn.evaluation import charts

_SIDE = 112  # pixels


def thumbnail(image: np.ndarray) -> bytes:
    """Makes a thumbnail of one RGB input.

    Args:
        image: (299, 299, 3) in [-1, 1].
    """
    return _jpeg(_resized(charts.rgb_images(image), PIL.Image.Resampling.BICUBIC))


def explained_thumbnail(
    image: np.ndarray, cam: np.ndarray | None, saliency: np.ndarray | None, side: int = 112
) -> bytes:
    """Makes a thumbnail of the image, its Grad-CAM overlay and its saliency overlay, side by side.

    Args:
        image: (299, 299, 3) in [-1, 1].
        cam: Grad-CAM of the CNN, (h, w) from 0 to 1; None if there is no CNN.
        saliency: of the RNN's timesteps, (23,) from 0 to 1; None if there is no RNN.
    """
    pixels = _resized(charts.rgb_images(image), PIL.Image.Resampling.BICUBIC)
    gray = pixels.mean(axis=-1, keepdims=True)
    overlays = [
        (1 - charts.OVERLAY_OPACITY) * gray
        + charts.OVERLAY_OPACITY
        * _resized(matplotlib.colormaps["inferno"](heat)[..., :3], resampling)
        for heat, resampling in (
            (cam, PIL.Image.Resampling.BILINEAR),
            (None if saliency is None else saliency[:, np.newaxis], PIL.Image.Resampling.NEAREST),
        )
        if heat is not None
    ]
    return _jpeg(np.concatenate([pixels, *overlays], axis=1))


def _resized(image: np.ndarray, resampling: PIL.Image.Resampling) -> np.ndarray:
    """(h, w, 3) in [0, 1] -> (_SIDE, _SIDE, 3)."""
    pixels = PIL.Image.fromarray((image * 255).round().astype(np.uint8))
    return np.asarray(pixels.resize((_SIDE, _SIDE), resampling)) / 255


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
