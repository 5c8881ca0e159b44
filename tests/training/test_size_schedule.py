"""Sizes of the CNN's input over the steps of a phase."""

import pytest

from cnnrnn.settings import image_sizes
from cnnrnn.training import size_schedule


def of(text, steps):
    return size_schedule.SizeSchedule(image_sizes.parse(text)[0], steps)


def test_the_parts_cover_all_steps_by_their_shares():
    schedule = of("160:0.7,224:0.2,299:0.1", 1000)
    assert [(p.size, p.start, p.end) for p in schedule.parts] == [
        (160, 0, 700),
        (224, 700, 900),
        (299, 900, 1000),
    ]
    assert [schedule.at(step).size for step in (0, 699, 700, 899, 900, 999)] == [
        *(160, 160, 224, 224, 299, 299)
    ]


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_few_steps_are_covered_without_gaps(steps):
    parts = of("160:0.7,224:0.2,299:0.1", steps).parts
    assert parts[0].start == 0 and parts[-1].end == steps
    assert [p.end for p in parts[:-1]] == [p.start for p in parts[1:]]


def test_a_constant_size_has_one_part():
    schedule = of("299", 10)
    assert schedule.at(3) == schedule.at(9) == schedule.at(100)


def test_the_cost_is_proportional_to_the_pixels():
    schedule = of("100:0.5,200:0.5", 10)
    assert schedule.cost(0, 10, step=0) == 5 + 5 * 4
    assert schedule.cost(4, 6, step=7) == pytest.approx(1 / 4 + 1)
    assert schedule.validation_cost(step=7) == pytest.approx((299 / 200) ** 2 / 3)


def test_without_the_cnn_all_images_cost_the_same():
    schedule = of("100:0.5,200:0.5", 10).constant()
    assert schedule.cost(0, 10, step=0) == schedule.cost(0, 10, step=7) == 10
    assert schedule.validation_cost(step=0) == pytest.approx(1 / 3)
