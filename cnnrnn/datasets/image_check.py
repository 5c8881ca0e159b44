"""What there is to know of one image before anything is trained on it."""

import dataclasses
import functools
import hashlib
import io
import os
import re
import warnings

import PIL.Image
import tensorflow as tf

from cnnrnn.preprocessing import image_header
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import text as text_lib

# By Pillow's name: what training can decode, and the usual suffixes of each.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
}
# Known by their header, so that what they are can be said. No others are opened: Pillow has
# readers for dozens of formats, and the bytes may come from anybody.
_OTHER_FORMATS = ("TIFF", "AVIF", "JPEG2000", "ICO", "PPM")
_ORIENTATION = 0x0112

# Bombs are looked for here, by a limit of the user's own.
PIL.Image.MAX_IMAGE_PIXELS = None
# What Pillow finds odd and reads nevertheless, TensorFlow has the last word on.
warnings.filterwarnings("ignore", module=r"PIL\..*")


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """Attributes:
    sha256: of the encoded bytes, in hexadecimal.
    format: Pillow's name for it, '' where the header cannot be read.
    width, height: in pixels as stored, 0 where the header cannot be read.
    frames: more than one in an animation.
    orientation: EXIF's, 1 to 8.
    problem: why it cannot be trained on, '' if it can.
    """

    sha256: str
    format: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    orientation: int = 1
    problem: str = ""


def examine(encoded: bytes, max_pixels: int) -> ImageInfo:
    """Looks at an image's header, then decodes it by the very op that training uses.

    The header comes first, because a small file can decode to gigabytes.

    Args:
        encoded: the whole file.
        max_pixels: in all of its frames together; one that has more is not decoded.
    """
    info = ImageInfo(hashlib.sha256(encoded).hexdigest())
    if not encoded:
        return dataclasses.replace(info, problem="is empty")
    try:
        info = _with_header(info, encoded)
    except PIL.UnidentifiedImageError:
        return dataclasses.replace(info, problem="is no image of a known format")
    except Exception as error:  # Pillow's readers raise whatever comes on damaged bytes
        return dataclasses.replace(
            info, problem=f"is no image that can be read ({text_lib.first_line(error)})"
        )
    return dataclasses.replace(info, problem=_fault(info, encoded, max_pixels))


def _with_header(info: ImageInfo, encoded: bytes) -> ImageInfo:
    """Adds what the header says; nothing is decoded."""
    with PIL.Image.open(io.BytesIO(encoded), formats=(*SUFFIXES, *_OTHER_FORMATS)) as image:
        # Pillow takes a JPEG with a second image behind the first for a format of its own.
        name = "JPEG" if image.format == "MPO" else image.format
        return dataclasses.replace(
            info,
            format=name,
            width=image.width,
            height=image.height,
            frames=getattr(image, "n_frames", 1) if name in ("GIF", "WEBP") else 1,
            orientation=_orientation(image),
        )


def _orientation(image: PIL.Image.Image) -> int:
    """What EXIF before the pixels says; for what comes after them Pillow would decode them."""
    try:
        value = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
    except Exception:  # damaged EXIF is no damage to the image
        return 1
    return value if value in range(1, 9) else 1


def _fault(info: ImageInfo, encoded: bytes, max_pixels: int) -> str:
    if info.format not in SUFFIXES:
        return f"is {info.format}, which TensorFlow does not read: convert it to JPEG or PNG"
    if info.format == "WEBP" and info.frames > 1:
        return "is an animated WebP, which TensorFlow does not read: convert it to JPEG or PNG"
    count_pixels, decode = _ops()
    try:
        pixels = info.width * info.height * info.frames
        if pixels <= max_pixels:  # frames of a GIF may be larger than its canvas
            pixels = int(count_pixels(encoded))
        if pixels > max_pixels:
            size = f"{info.width:,} x {info.height:,}"
            return (
                f"has {pixels / 1e6:,.1f} million pixels "
                f"({size if info.frames == 1 else f'in {info.frames} frames'}), "
                f"more than --max_megapixels={max_pixels / 1e6:g} allows"
            )
        decode(encoded)
    except tf.errors.OpError as error:
        return f"cannot be decoded: {reason(error)}"
    return ""


@functools.cache
def _ops():
    """Counts the pixels; decodes and throws them away. Compiled once."""
    file = tf.TensorSpec((), tf.string)
    return (
        tf.function(image_header.pixels, input_signature=[file]),
        tf.function(lambda encoded: tf.shape(views_lib.decode(encoded)), input_signature=[file]),
    )


def has_usual_suffix(path: str, info: ImageInfo) -> bool:
    """Whether a file's name says what it is; true of a format that has no usual one here."""
    suffixes = SUFFIXES.get(info.format)
    return suffixes is None or os.path.splitext(path)[1].lower() in suffixes


def reason(error: tf.errors.OpError) -> str:
    """TensorFlow's reason without the node that it happened in."""
    message = text_lib.first_line(error)
    message = re.sub(r"\{\{function_node .*?\}\} ", "", message)
    return re.sub(r" ?\[(Op:|\[).*", "", message).rstrip(". ")
