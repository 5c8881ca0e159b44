"""Checks of single images of many kinds, most of them bad."""

import io
import re

import PIL.Image
import PIL.PngImagePlugin
import pytest
import tensorflow as tf

from cnnrnn.datasets import image_check
from cnnrnn.preprocessing import views as views_lib
from tests import (
    bad_images,
    two_cpus,  # noqa: F401
)

LIMIT = 100_000_000


@pytest.mark.parametrize("name", bad_images.FILES)
def test_exactly_the_bad_images_have_a_problem(name):
    content, problem = bad_images.FILES[name]
    info = image_check.examine(content, LIMIT)
    if problem is None:
        assert info.problem == ""
        assert views_lib.decode(content).shape[-1] == 3
    else:
        assert re.search(problem, info.problem)
        assert "{{" not in info.problem and "\n" not in info.problem and "[Op" not in info.problem


@pytest.mark.parametrize("name", sorted(bad_images.BAD - bad_images.DECODABLE))
def test_bad_images_do_not_decode(name):
    """No image is refused that could be trained on."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        views_lib.decode(bad_images.FILES[name][0])


def test_the_header_is_read():
    info = image_check.examine(bad_images.FILES["rotated.jpg"][0], LIMIT)
    assert (info.format, info.width, info.height, info.orientation) == ("JPEG", 40, 32, 6)
    assert image_check.examine(bad_images.FILES["animated.gif"][0], LIMIT).frames == 3


@pytest.mark.parametrize("file, bits", [("bits16.png", 16), ("good.jpg", 8), ("palette.png", 8)])
def test_the_bits_per_channel_are_read(file, bits):
    assert image_check.examine(bad_images.FILES[file][0], LIMIT).bits == bits


@pytest.mark.parametrize(
    "content, transparent",
    [
        (bad_images.encoded("PNG", "RGBA"), True),
        (bad_images.encoded("PNG", "P", transparency=bytes(256)), True),
        (bad_images.encoded("PNG", "L", transparency=120), True),
        (bad_images.encoded("PNG", "P"), False),
        (bad_images.encoded("PNG"), False),
        (bad_images.opaque(), False),
        (bad_images.FILES["transparent.gif"][0], True),
        (bad_images.FILES["good.gif"][0], False),
        (bad_images.FILES["bits16.png"][0], False),
        (bad_images.JPEG, False),
    ],
)
def test_transparent_pixels_are_found(content, transparent):
    info = image_check.examine(content, LIMIT)
    assert (info.transparent, info.problem) == (transparent, "")


def test_transparent_pixels_of_a_gif_are_read_as_black():
    decoded = views_lib.decode(bad_images.FILES["transparent.gif"][0]).numpy()
    assert decoded[:, :30].max() == 0 and decoded[:, 30:].min() == 255


def test_a_png_with_much_compressed_metadata_is_read():
    notes = PIL.PngImagePlugin.PngInfo()
    notes.add_text("notes", "a" * 2_000_000, zip=True)
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 32)).save(buffer, "PNG", pnginfo=notes)
    assert image_check.examine(buffer.getvalue(), LIMIT).problem == ""


def test_a_png_is_read_whose_metadata_are_damaged():
    """TensorFlow decodes it."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 32)).save(buffer, "PNG", dpi=(300, 300))
    content = bytearray(buffer.getvalue())
    content[content.index(b"pHYs") + 4] ^= 1  # its checksum is wrong now
    info = image_check.examine(bytes(content), LIMIT)
    assert (info.problem, info.width, info.height) == ("", 40, 32)
    content[content.index(b"IDAT") + 6] ^= 1
    assert "cannot be decoded" in image_check.examine(bytes(content), LIMIT).problem


def test_the_orientation_is_that_of_the_exif_data_alone():
    """Only this one is applied; Pillow would read that of XMP data, too."""
    exif, buffer = PIL.Image.Exif(), io.BytesIO()
    exif[0x010E] = "a description"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    PIL.Image.new("RGB", (40, 32)).save(buffer, "JPEG", exif=exif, xmp=xmp)
    assert image_check.examine(buffer.getvalue(), LIMIT).orientation == 1
    exif[0x0112], buffer = 6, io.BytesIO()
    PIL.Image.new("RGB", (40, 32)).save(buffer, "JPEG", exif=exif)
    assert image_check.examine(buffer.getvalue(), LIMIT).orientation == 6


def test_images_are_checked_on_the_cpu(monkeypatch):
    """The second logical CPU is the default device here, as a GPU is where there is one."""
    used = []

    def recorded(op):
        def run(encoded):
            result = op(encoded)
            used.append(result.device)
            return result

        return run

    ops = [recorded(op) for op in image_check._ops()]
    monkeypatch.setattr(image_check, "_ops", lambda: ops)
    with tf.device("/CPU:1"):
        assert ops[0](bad_images.FILES["animated.gif"][0]).device.endswith("CPU:1")
        used.clear()
        assert not image_check.examine(bad_images.FILES["animated.gif"][0], LIMIT).problem
    assert len(used) == 2 and all(device.endswith("CPU:0") for device in used)


def test_the_limit_counts_all_frames():
    gif = bad_images.FILES["animated.gif"][0]
    assert not image_check.examine(gif, 3 * 40 * 32).problem
    assert "in 3 frames" in image_check.examine(gif, 3 * 40 * 32 - 1).problem


def test_usual_suffixes_of_a_format():
    for path, format, usual in (
        ("a/b.JPG", "JPEG", True),
        ("a/b.png", "JPEG", False),
        ("a/b.tif", "TIFF", True),
        ("a/b", "PNG", False),
    ):
        info = image_check.ImageInfo("", format=format)
        assert image_check.has_usual_suffix(path, info) == usual
