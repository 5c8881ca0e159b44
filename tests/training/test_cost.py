"""The estimated memory of phase 2, and the table of measured costs."""

import dataclasses

import pytest

from cnnrnn.training import cost


def memory(batch, **changes):
    return cost.phase2_memory(batch, 10**8, **{"half": False, **changes})


def test_16_bit_precision_halves_the_memory_of_images_and_copies_the_weights():
    of_images = memory(16) - memory(0)
    assert memory(16, half=True) - memory(0, half=True) == pytest.approx(of_images / 2)
    assert memory(0, half=True) - memory(0) == pytest.approx(0.2e9)


def test_each_replica_has_its_own_parameters():
    assert memory(16, replicas=2) - memory(16) == pytest.approx(1.6e9)


def test_images_take_memory_by_their_pixels():
    of_images = memory(16) - memory(0)
    assert memory(16, image_size=598) - memory(0) == pytest.approx(4 * of_images)
    largest = cost.largest_phase2_batch(8e9, 10**8, half=False, image_size=160)
    assert memory(largest, image_size=160) <= 8e9 < memory(largest + 1, image_size=160)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_largest_batch_fits_and_the_next_does_not(replicas):
    largest = cost.largest_phase2_batch(8e9, 10**8, half=False, replicas=replicas)
    assert largest % replicas == 0
    assert memory(largest, replicas=replicas) <= 8e9
    assert memory(largest + replicas, replicas=replicas) > 8e9


def test_the_table_of_a_gpu_names_its_memory():
    part = cost.Part(rate=5.0, images=600, passes=1)
    measured = cost.PhaseCost(
        phase="phase1",
        devices="2 GPUs",
        precision="bfloat16",
        kernel="a kernel",
        batch_size=4,
        peak=3_100_000_000,
        available=24_000_000_000,
        features=None,
        training=part,
        validation=part,
        on_gpu=True,
    )
    lines = {line[:16].strip(): line[16:].strip() for line in cost.table([measured]).splitlines()}
    assert lines["peak GPU memory"] == "3.1 GB" and lines["GPU memory"] == "24.0 GB"
    assert "available memory" not in lines


def test_the_table_has_a_column_for_each_phase_and_the_time_of_the_whole_run():
    phase1 = cost.PhaseCost(
        phase="phase1",
        devices="the CPU",
        precision="float32",
        kernel="a kernel",
        batch_size=4,
        peak=3_100_000_000,
        available=None,
        features=cost.Part(rate=5.0, images=600, passes=1),  # 120 s
        training=cost.Part(rate=10.0, images=200, passes=3),  # 60 s
        validation=cost.Part(rate=20.0, images=100, passes=3),  # 15 s
    )
    table = cost.table([phase1])
    for text in ("the CPU, float32", "3.1 GB", "unknown", "3 x 200 images: 1 min 00 s"):
        assert text in table
    assert "3 min 15 s" in table and "whole run" not in table and "--max_minutes" not in table
    limited = dataclasses.replace(phase1, limit=30.0)
    # Computing features counts as none of its time, and a validation follows.
    assert limited.seconds == 120 + 30 + 5
    lines = cost.table([limited, dataclasses.replace(phase1, phase="phase2")]).splitlines()
    (limit,) = (line.split("  ") for line in lines if line.startswith("--max_minutes"))
    assert [cell.strip() for cell in limit if cell] == ["--max_minutes", "30 s", "-"]
    assert any(line.startswith("whole run:  5 min 55 s") for line in lines)  # with 5 to evaluate
