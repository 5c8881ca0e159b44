"""The two inputs of the network, compared with Keras, and decoding of all image formats."""

import io

import keras
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets
import tensorflow as tf

from cnnrnn.preprocessing import image_header
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.settings import data as data_settings
from cnnrnn.system import devices


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """(427, 640, 3) uint8, a photograph that comes with scikit-learn."""
    return sklearn.datasets.load_sample_image("china.jpg")


def test_the_rgb_view_is_that_of_keras_for_xception(photograph):
    ours = views_lib.Preprocessing().rgb(tf.constant(photograph))
    resized = keras.ops.image.resize(photograph.astype("float32"), (299, 299), "bilinear")
    expected = keras.applications.xception.preprocess_input(np.array(resized))
    assert ours.shape == (299, 299, 3)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert ours.numpy().min() >= -1 and ours.numpy().max() <= 1


@pytest.mark.parametrize("method", data_settings.RESIZE_METHODS)
def test_every_resize_method_gives_float32_near_the_range(photograph, method):
    view = views_lib.Preprocessing(method).rgb(tf.constant(photograph)).numpy()
    assert view.dtype == np.float32 and view.shape == (299, 299, 3)
    assert np.abs(view).max() < 1.3
    assert view.std() > 0.2


def test_a_timestep_is_thirteen_gray_pixel_rows(photograph):
    rgb = views_lib.Preprocessing().rgb(tf.constant(photograph))
    sequence = views_lib.sequence_of(rgb).numpy()
    assert sequence.shape == (23, 3887)
    expected = rgb.numpy()[13 * 4 : 13 * 5].mean(axis=-1).reshape(-1)
    np.testing.assert_allclose(sequence[4], expected, atol=1e-6)


@pytest.mark.thorough
def test_what_is_traced_in_a_block_on_the_cpu_names_no_device():
    """So exports, which contain these ops, do not."""

    def prepare(encoded):
        image = views_lib.decode(image_header.limited(encoded, 10_000))
        return views_lib.Preprocessing().inputs(image)

    with devices.on_cpu():
        function = tf.function(prepare).get_concrete_function(tf.TensorSpec((), tf.string))
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    assert any(node.op == "DecodeImage" for node in nodes)
    assert {node.device for node in nodes} == {""}


def encoders(pixels: np.ndarray):
    """The same image in all formats that can be decoded."""
    rgb = PIL.Image.fromarray(pixels)

    def save(image, **kwargs):
        buffer = io.BytesIO()
        image.save(buffer, **kwargs)
        return buffer.getvalue()

    deep = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    return {
        "jpeg": save(rgb, format="JPEG", quality=95),
        "progressive jpeg": save(rgb, format="JPEG", progressive=True),
        "gray jpeg": save(rgb.convert("L"), format="JPEG"),
        "cmyk jpeg": save(rgb.convert("CMYK"), format="JPEG", quality=95),
        "png": save(rgb, format="PNG"),
        "gray png": save(rgb.convert("L"), format="PNG"),
        "palette png": save(rgb.quantize(64), format="PNG"),
        "rgba png": save(rgb.convert("RGBA"), format="PNG"),
        "16-bit png": save(PIL.Image.fromarray(deep), format="PNG"),
        "bmp": save(rgb, format="BMP"),
        "gif": save(rgb.quantize(64), format="GIF"),
        "animated gif": save(
            rgb.quantize(64),
            format="GIF",
            save_all=True,
            append_images=[PIL.Image.new("P", (40, 30))],
        ),
        "webp": save(rgb, format="WEBP", lossless=True),
    }


def test_all_formats_decode_to_the_same_image():
    y, x = np.mgrid[0:30, 0:40]
    pixels = np.stack([x * 6, y * 8, 255 - x * 3 - y * 4], axis=-1).astype(np.uint8)
    for name, encoded in encoders(pixels).items():
        decoded = views_lib.decode(tf.constant(encoded)).numpy()
        assert decoded.shape == pixels.shape and decoded.dtype == np.uint8, name
        expected = pixels.astype(float)
        if "gray" in name or "16-bit" in name:
            expected = (pixels @ [0.299, 0.587, 0.114])[..., None].repeat(3, axis=-1)
        is_exact = name in ("png", "rgba png", "bmp", "webp")
        assert np.abs(decoded - expected).mean() < (1e-9 if is_exact else 12), name


@pytest.mark.parametrize("encoded", [b"", b"text, not an image", b"II*\0" + b"\0" * 100])
def test_other_bytes_raise(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        views_lib.decode(tf.constant(encoded))


def test_a_truncated_jpeg_raises():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    encoded = encoders(pixels)["jpeg"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        views_lib.decode(tf.constant(encoded[: len(encoded) // 2]))


@pytest.mark.parametrize("method", data_settings.RESIZE_METHODS)
@pytest.mark.parametrize("size", [(64, 64), (427, 640), (299, 299), (5, 31)])
def test_mean_and_resize_commute(photograph, method, size):
    """The sequence computed directly equals that of the RGB view."""
    image = tf.constant(photograph[: size[0], : size[1]])
    direct = views_lib.Preprocessing(method).sequence(image)
    from_rgb = views_lib.sequence_of(views_lib.Preprocessing(method).rgb(image))
    assert direct.shape == (23, 3887)
    # 'area' sums many pixels in float32; one step of an 8-bit pixel is 8e-3.
    tolerance = 5e-5 if method == "area" else 2e-6
    np.testing.assert_allclose(direct, from_rgb, atol=tolerance)


def test_a_smaller_image_of_the_cnn_is_scaled_from_the_view_of_the_rnn():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    full, small = (views_lib.Preprocessing(image_size=size).inputs(image) for size in (299, 160))
    assert small["image"].shape == (160, 160, 3)
    np.testing.assert_array_equal(small["sequence"], full["sequence"])
    area = tf.image.resize(full["image"], (160, 160), "area")
    np.testing.assert_allclose(small["image"], area, atol=0.12)
