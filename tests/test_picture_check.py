"""Every kind of picture that is met in people's folders, by itself."""

import re

import bad_pictures
import pytest
import tensorflow as tf

from cnnrnn.datasets import image_check
from cnnrnn.preprocessing import views as views_lib

LIMIT = 100_000_000


@pytest.mark.parametrize("name", bad_pictures.FILES)
def test_a_picture_is_found_bad_exactly_if_it_is(name):
    content, fault = bad_pictures.FILES[name]
    facts = image_check.examine(content, LIMIT)
    if fault is None:
        assert facts.fault == ""
        assert views_lib.decode(content).shape[-1] == 3
    else:
        assert re.search(fault, facts.fault)
        assert "{{" not in facts.fault and "\n" not in facts.fault and "[Op" not in facts.fault


@pytest.mark.parametrize(
    "name", sorted(bad_pictures.BAD - {"bomb.png", "bomb.gif", "huge_header.jpg"})
)
def test_what_is_called_bad_does_not_decode(name):
    """Nothing is kept from training that could be trained on."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        views_lib.decode(bad_pictures.FILES[name][0])


def test_the_header_is_read():
    facts = image_check.examine(bad_pictures.FILES["rotated.jpg"][0], LIMIT)
    assert (facts.format, facts.width, facts.height, facts.orientation) == ("JPEG", 40, 32, 6)
    assert image_check.examine(bad_pictures.FILES["animated.gif"][0], LIMIT).frames == 3


def test_the_limit_counts_all_frames():
    gif = bad_pictures.FILES["animated.gif"][0]
    assert not image_check.examine(gif, 3 * 40 * 32).fault
    assert "in 3 frames" in image_check.examine(gif, 3 * 40 * 32 - 1).fault


def test_a_suffix_that_is_not_the_formats():
    for path, format, usual in (
        ("a/b.JPG", "JPEG", True),
        ("a/b.png", "JPEG", False),
        ("a/b.tif", "TIFF", True),
        ("a/b", "PNG", False),
    ):
        facts = image_check.Facts("", format=format)
        assert image_check.has_usual_suffix(path, facts) == usual
