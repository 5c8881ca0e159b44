"""Tests of the archive of photos, from a few stamps."""

import io

import PIL.Image
import pytest

from cnnrnn.data.photos import make_archive


@pytest.fixture
def stamps(tmp_path):
    for name in ("owl", "owl_mirror", "cartoon/duck", "albatross"):
        path = tmp_path / "animals" / "birds" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGBA", (448, 20), (255, 0, 0, 0)).save(path)
    path = tmp_path / "animals" / "mammals" / "hedgehog.png"  # a drawing
    path.parent.mkdir()
    PIL.Image.new("RGBA", (20, 20)).save(path)
    return tmp_path


def test_photographs_are_found_and_copies_and_drawings_left_out(stamps):
    assert sorted(make_archive.photos(stamps)) == ["bird/albatross.jpg", "bird/owl.jpg"]


def test_transparent_parts_are_white_and_large_images_smaller(stamps):
    jpeg = make_archive.on_white(stamps / "animals" / "birds" / "owl.png")
    image = PIL.Image.open(io.BytesIO(jpeg))
    assert image.size == (224, 10) and image.getpixel((5, 5)) == (255, 255, 255)
