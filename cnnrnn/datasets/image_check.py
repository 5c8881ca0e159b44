"""Checks one image before training: format, size, and whether TensorFlow can decode it."""

import dataclasses
import functools
import hashlib
import io
import os
import re
import struct
import warnings

import PIL.Image
import PIL.PngImagePlugin
import tensorflow as tf

from cnnrnn.preprocessing import image_header
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import devices
from cnnrnn.system import text as text_lib

# The usual suffixes of the formats that training can decode, by Pillow's name of the format.
_DECODABLE = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
}
# Formats that are identified to name them in the message. No others are opened: Pillow has readers
# for dozens of formats, and the files may come from anyone.
_NOT_DECODABLE = ("TIFF", "AVIF", "JPEG2000", "ICO", "PPM")
DECODABLE_SUFFIXES = tuple(suffix for suffixes in _DECODABLE.values() for suffix in suffixes)
# The suffixes of files that are listed as images. Those of formats that cannot be decoded are among
# them: a folder with TIFFs must be refused, not trained on without them.
SUFFIXES = frozenset(
    [*DECODABLE_SUFFIXES, ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl"]
    + [".ppm", ".pgm", ".pbm", ".pnm"]
)
# Formats that Pillow does not know, by what their files hold at an offset.
_UNKNOWN = {
    "HEIC": (4, (b"ftyphei", b"ftyphev", b"ftypmif1")),
    "JPEG XL": (0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
}
_ORIENTATION = 0x0112  # EXIF tag
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_PNG_BITS = 24  # offset of the bits per channel: the header is the first chunk

# Decompression bombs are refused by `max_pixels`.
PIL.Image.MAX_IMAGE_PIXELS = None
# Pillow refuses a PNG with more metadata, which TensorFlow does not read.
PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_MEMORY
# Pillow warns of files that it reads nevertheless; TensorFlow decides whether they decode.
warnings.filterwarnings("ignore", module=r"PIL\..*")


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """What is known of one image.

    Attributes:
        sha256: of the encoded bytes, in hexadecimal; '' if the file cannot be read.
        format: Pillow's name of it, '' if the header cannot be read.
        width, height: in pixels as stored, 0 if the header cannot be read.
        frames: more than one in an animation.
        orientation: EXIF's, 1 to 8.
        bits: per channel, of a PNG as stored.
        transparent: whether it is a PNG or a GIF with pixels that are not opaque.
        problem: why it cannot be trained on, '' if it can.
    """

    sha256: str
    format: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    orientation: int = 1
    bits: int = 8
    transparent: bool = False
    problem: str = ""


def examine(encoded: bytes, max_pixels: int) -> ImageInfo:
    """Reads an image's header, then decodes it with the op that training uses.

    The header comes first, because a small file can decode to gigabytes.

    Args:
        encoded: the content of the file.
        max_pixels: of all frames together; images with more are not decoded.
    """
    info = ImageInfo(hashlib.sha256(encoded).hexdigest())
    if not encoded:
        return dataclasses.replace(info, problem="is empty")
    try:
        info = _with_header(info, encoded)
    except PIL.UnidentifiedImageError:
        return dataclasses.replace(info, problem=_problem_of_unknown(encoded))
    except Exception as error:  # Pillow's readers raise anything on damaged bytes
        return dataclasses.replace(
            info, problem=f"is not a readable image ({text_lib.first_line(error)})"
        )
    problem = _problem(info, encoded, max_pixels)
    transparent = info.format in ("PNG", "GIF") and not problem and _is_transparent(encoded)
    return dataclasses.replace(info, transparent=transparent, problem=problem)


def _with_header(info: ImageInfo, encoded: bytes) -> ImageInfo:
    """Adds what the header says. Nothing is decoded."""
    try:
        return _with_header_by_pillow(info, encoded)
    except Exception:  # Pillow's readers raise anything on damaged bytes
        # Pillow refuses a PNG with a wrong checksum of metadata that TensorFlow does not read.
        if not encoded.startswith(_PNG_START) or len(encoded) <= _PNG_BITS:
            raise
    width, height, bits = struct.unpack_from(">IIB", encoded, len(_PNG_START))
    return dataclasses.replace(info, format="PNG", width=width, height=height, frames=1, bits=bits)


def _with_header_by_pillow(info: ImageInfo, encoded: bytes) -> ImageInfo:
    with PIL.Image.open(io.BytesIO(encoded), formats=(*_DECODABLE, *_NOT_DECODABLE)) as image:
        # Pillow has a format of its own for JPEGs that are followed by a second image.
        name = "JPEG" if image.format == "MPO" else image.format
        return dataclasses.replace(
            info,
            format=name,
            width=image.width,
            height=image.height,
            frames=getattr(image, "n_frames", 1) if name in ("GIF", "WEBP") else 1,
            orientation=_orientation(image),
            bits=encoded[_PNG_BITS] if name == "PNG" else 8,
        )


def _is_transparent(encoded: bytes) -> bool:
    """Whether a PNG or GIF that TensorFlow decodes has pixels that are not opaque."""
    try:
        with PIL.Image.open(io.BytesIO(encoded), formats=("PNG", "GIF")) as image:
            if not image.has_transparency_data:
                return False
            return image.convert("RGBA").getchannel("A").getextrema()[0] < 255
    except Exception:  # what Pillow alone cannot decode is no problem of the image
        return False


def _orientation(image: PIL.Image.Image) -> int:
    """The orientation of EXIF data before the pixels. Pillow would decode to read later data."""
    exif = PIL.Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))  # image.getexif() would also read it from XMP data
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # an image with damaged EXIF data is not damaged
        return 1
    return value if value in range(1, 9) else 1


def _problem_of_unknown(encoded: bytes) -> str:
    """Why an image that Pillow does not identify cannot be trained on."""
    for name, (offset, starts) in _UNKNOWN.items():
        if encoded.startswith(starts, offset):
            return _not_read(name)
    return "is not an image of a known format"


def _not_read(name: str) -> str:
    return (
        f"is {name}, which TensorFlow does not read: convert it to JPEG or PNG, e.g. with "
        "ImageMagick (mogrify -format png)"
    )


def _problem(info: ImageInfo, encoded: bytes, max_pixels: int) -> str:
    """Why an image with a readable header cannot be trained on, '' if it can."""
    if info.format not in _DECODABLE:
        return _not_read(info.format)
    if info.format == "WEBP" and info.frames > 1:
        return "is an animated WebP, which TensorFlow does not read: convert it to JPEG or PNG"
    count_pixels, decode = _ops()
    try:
        pixels = info.width * info.height * info.frames
        if pixels <= max_pixels:  # frames of a GIF may be larger than its canvas
            with devices.on_cpu():
                pixels = int(count_pixels(encoded))
        if pixels > max_pixels:
            size = f"{info.width:,} x {info.height:,}"
            return (
                f"has {pixels / 1e6:,.1f} million pixels "
                f"({size if info.frames == 1 else f'in {info.frames} frames'}), "
                f"more than --max_megapixels={max_pixels / 1e6:g} allows"
            )
        with devices.on_cpu():
            decode(encoded)
    except tf.errors.OpError as error:
        return f"cannot be decoded: {reason(error)}"
    return ""


@functools.cache
def _ops():
    """Functions that count the pixels and that decode, each compiled once."""
    file = tf.TensorSpec((), tf.string)
    return (
        tf.function(image_header.pixels, input_signature=[file]),
        tf.function(lambda encoded: tf.shape(views_lib.decode(encoded)), input_signature=[file]),
    )


def has_usual_suffix(path: str, info: ImageInfo) -> bool:
    """Whether a file's suffix fits its format; True for formats without usual suffixes here."""
    suffixes = _DECODABLE.get(info.format)
    return suffixes is None or os.path.splitext(path)[1].lower() in suffixes


def reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the names of node and function; the text of an assertion."""
    if asserted := re.search(r"assertion failed: \[([^\]]+)\]", error.message):
        return asserted[1]
    message = text_lib.first_line(error)
    message = re.sub(r"\{\{function_node .*?\}\} ", "", message)
    return re.sub(r" ?\[(Op:|\[).*", "", message).rstrip(". ")
