"""Fuzzer of image checks: no crash, no hang, no accepted image that training cannot decode."""

import os

from tests import bad_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

from cnnrnn.datasets import image_check
from cnnrnn.preprocessing import views as views_lib
from tests.fuzz import harness, mutations

MAX_PIXELS = 4_000_000  # bounds the memory and time of one try


def make(seed, folder):
    samples = [content for content, _ in bad_images.FILES.values() if content]
    # Good images twice, so that most tries damage an image that can be decoded.
    samples += [content for content, problem in bad_images.FILES.values() if not problem]

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def views(encoded):
        image = views_lib.decode(encoded)
        rgb = views_lib.Preprocessing().rgb(image)
        return tf.shape(image), rgb, views_lib.Preprocessing().sequence(image)

    def try_one(number):
        rng = np.random.default_rng([seed, number])
        damaged = mutations.mutate(samples[rng.integers(len(samples))], samples, rng)
        info = image_check.examine(damaged, MAX_PIXELS)
        if info.problem:
            return "refused"
        shape, rgb, gray = views(damaged)
        stored, decoded = (info.height, info.width), tuple(shape.numpy()[:2])
        # The frames of a GIF may have other sizes than its canvas.
        if decoded not in (stored, stored[::-1]) and info.format != "GIF":
            raise AssertionError(f"header {stored}, decoded {decoded}")
        if decoded[0] * decoded[1] > MAX_PIXELS:
            raise AssertionError(f"{decoded} was decoded")
        if not (np.isfinite(rgb).all() and np.isfinite(gray).all()):
            raise AssertionError("a view is not finite")
        return "read"

    return try_one


if __name__ == "__main__":
    harness.main(make)
