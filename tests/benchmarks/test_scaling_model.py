"""The model of training on many devices."""

import dataclasses

import numpy as np
import pytest

from benchmarks import scaling_model as model


def simulate(devices, phase, per_device, steps):
    """Mean seconds of steps whose devices vary at random."""
    rng = np.random.default_rng(0)
    part = model.step(dataclasses.replace(devices, jitter=0.0), phase, per_device)
    times = part.compute * (1 + devices.jitter * rng.standard_normal((steps, devices.count)))
    return float(np.maximum(times.max(axis=1) + part.sums, part.input).mean())


def test_the_simulation_agrees_with_the_formula():
    for count in (1, 8, 64):
        devices = dataclasses.replace(model.gpus(count), jitter=0.05)
        simulated = simulate(devices, 2, 64, steps=2000)
        assert model.step(devices, 2, 64).seconds == pytest.approx(simulated, rel=0.03)


def test_the_model_agrees_with_what_was_measured():
    """All but the rounding of gradients, which takes time that the model does not know."""
    for line in model.comparison().splitlines()[3:]:
        phase, _, gradient_bytes, _, measured, modeled = line.strip("| ").split(" | ")
        limit = 0.05 if gradient_bytes == "4" else 0.15
        assert float(modeled) == pytest.approx(float(measured), rel=limit)


def test_one_device_sends_nothing():
    part = model.step(model.gpus(1), 2, 64)
    assert part.sums == 0 and model.all_reduced_bytes(2, 1) == 0


def test_more_images_per_device_are_more_efficient():
    def efficiency(per_device):
        part = model.step(model.gpus(64), 2, per_device)
        return part.compute / (part.compute + part.sums)

    assert efficiency(16) < efficiency(64) < efficiency(256)
