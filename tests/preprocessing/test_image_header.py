"""The number of pixels in the header compared with Pillow, bombs, and damaged headers."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from cnnrnn.preprocessing import image_header
from tests import bad_images

pixels = tf.function(image_header.pixels, input_signature=[tf.TensorSpec((), tf.string)])
GOOD = sorted(set(bad_images.FILES) - bad_images.BAD)


@pytest.mark.parametrize("name", [*GOOD, "animated.webp"])
def test_the_number_of_pixels_is_that_of_pillow(name):
    content = bad_images.FILES[name][0]
    with PIL.Image.open(io.BytesIO(content)) as image:
        frames = image.n_frames if image.format == "GIF" else 1
        assert pixels(content).numpy() == image.width * image.height * frames


def test_a_bomb_is_detected_without_decoding_it():
    assert pixels(bad_images.FILES["bomb.png"][0]).numpy() == 40_000 * 40_000
    assert pixels(bad_images.FILES["bomb.gif"][0]).numpy() == 40_000 * 40_000 + 40 * 32


def test_all_frames_of_a_gif_are_found_among_sub_blocks_and_color_tables():
    noise = [PIL.Image.effect_noise((300, 200), 90).convert("RGB") for _ in range(3)]
    frames = [image.quantize(colors) for image, colors in zip(noise, (16, 4, 256), strict=True)]
    file = io.BytesIO()
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], comment=b"x" * 700, optimize=False
    )
    assert pixels(file.getvalue()).numpy() == 3 * 300 * 200
    for cut in range(0, len(file.getvalue()), 997):
        assert 0 <= pixels(file.getvalue()[:cut]).numpy() <= 3 * 300 * 200


@pytest.mark.parametrize("share", [0.01, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part, count", [(b"\x21\xfe\0", 300_000), (b"\1x", 500_000)])
def test_a_gif_of_headers_only_is_refused_early(monkeypatch, part, count, share):
    """Reading 20 MB of them would block a server's only thread for minutes."""
    assert image_header._GIF_MAX_STEPS == 200_000
    monkeypatch.setattr(image_header, "_GIF_MAX_STEPS", int(share * 200_000))
    limited = tf.function(image_header.pixels, input_signature=[tf.TensorSpec((), tf.string)])
    headers = part * int(share * count)
    if part == b"\1x":
        headers = b"\x21\xfe" + headers + b"\0"
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many blocks"):
        limited(bad_images.encoded("GIF")[:-1] + headers + b";")


@pytest.mark.parametrize("signature", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"II*\0", b""])
def test_other_formats_are_not_passed_on_to_the_decoder(signature):
    """TensorFlow decodes JPEG XL, too, and its pixels are not counted here."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="of another format"):
        image_header.limited(tf.constant(signature + bytes(100)), 10**9)


def test_the_colors_of_a_small_palette_are_found():
    image = PIL.Image.new("RGB", (9, 5), (200, 30, 10)).quantize(4)
    file = io.BytesIO()
    image.save(file, "BMP")
    with pytest.raises(tf.errors.InvalidArgumentError, match="a BMP with a palette"):
        pixels(file.getvalue())


def test_a_video_after_a_photograph_is_no_scan():
    video = np.random.default_rng(4).bytes(10_000_000)
    assert pixels(bad_images.JPEG + video).numpy() == 40 * 32


@pytest.mark.parametrize("lossless", [True, False])
def test_lossy_and_lossless_webp(lossless):
    content = bad_images.encoded("WEBP", size=(300, 17), lossless=lossless)
    assert pixels(content).numpy() == 300 * 17


def test_other_bytes_have_no_pixels_or_raise_as_decoding_does():
    rng = np.random.default_rng(0)
    for content in (b"", b"x", b"BM", b"GIF8", b"\x89PNG", b"RIFF0000WEBP", rng.bytes(40)):
        assert pixels(content).numpy() >= 0
    with pytest.raises(tf.errors.InvalidArgumentError):
        pixels(b"\xff\xd8 no more")
