"""EXIF orientation compared with Pillow, and damaged EXIF data."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from cnnrnn.preprocessing import exif
from cnnrnn.preprocessing import views as views_lib

orientation = tf.function(exif.orientation, input_signature=[tf.TensorSpec((), tf.string)])


def jpeg(value=None, byte_order="<", also=(), size=(24, 16)):
    pixels = np.arange(size[0] * size[1] * 3).reshape(size[1], size[0], 3) % 251
    image = PIL.Image.fromarray(pixels.astype(np.uint8))
    exif_data = PIL.Image.Exif()
    exif_data.endian = byte_order
    for tag, text in also:
        exif_data[tag] = text
    if value is not None:
        exif_data[0x0112] = value
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif_data)
    return buffer.getvalue()


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("byte_order", "<>")
def test_images_are_rotated_as_by_pillow(value, byte_order):
    encoded = jpeg(value, byte_order, also=[(0x010F, "a maker"), (0x0132, "2020:01:01 00:00:00")])
    assert orientation(encoded).numpy() == value
    pixels = tf.io.decode_image(encoded, channels=3)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(encoded))))
    rotated = exif.upright(pixels, tf.constant(value)).numpy()
    assert rotated.shape == expected.shape
    np.testing.assert_allclose(rotated.astype(int), expected, atol=8)  # two JPEG decoders
    np.testing.assert_array_equal(views_lib.decode(encoded), rotated)


def test_images_without_an_orientation_are_upright():
    assert orientation(jpeg()).numpy() == 1
    assert orientation(jpeg(also=[(0x010F, "a maker")])).numpy() == 1
    for value in (0, 9, 65535):
        assert orientation(jpeg(value)).numpy() == 1
    for other in (b"", b"\xff\xd8", b"not an image", b"Exif\x00\x00II*\x00"):
        assert orientation(other).numpy() == 1


def test_exif_data_is_found_after_other_segments():
    encoded = jpeg(6)
    comment = b"\xff\xfe\x75\x32" + b"\x80" * 30000
    assert orientation(encoded[:2] + comment + encoded[2:]).numpy() == 6


def test_damaged_exif_never_fails():
    rng = np.random.default_rng(0)
    encoded = np.frombuffer(jpeg(6, also=[(0x010F, "a maker")]), np.uint8)
    start = encoded.tobytes().index(b"Exif")
    for _ in range(500):
        damaged = encoded.copy()
        places = rng.integers(start, start + 60, rng.integers(1, 8))
        damaged[places] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)], places.size)
        cut = rng.integers(start, len(damaged)) if rng.random() < 0.3 else len(damaged)
        assert 1 <= orientation(damaged[:cut].tobytes()).numpy() <= 8
