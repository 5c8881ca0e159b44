"""Shared by tests, without TensorFlow: paths, small images, small data sets."""

import io
import os
import pathlib
import sys
import time

import numpy as np
import PIL.Image

REPOSITORY = pathlib.Path(__file__).parent.parent
# The command line of the program with the small network.
SMALL_PROGRAM = (sys.executable, "-P", str(REPOSITORY / "tests" / "small_network.py"))
CLASSES = ("black", "gray", "white")
REAL_ARCHIVE = pathlib.Path(
    os.environ.get("CNNRNN_TINY_IMAGENET_ZIP")
    or REPOSITORY / "../shared/datasets/tiny-imagenet-100-A.zip"
).resolve()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 pixels, (height, width, 3)."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_classes(root: pathlib.Path, per_class: int, seed: int = 0) -> pathlib.Path:
    """Writes class folders of small images; classes differ in brightness, all images differ."""
    rng = np.random.default_rng(seed)
    for brightness, name in zip((30, 128, 225), CLASSES, strict=True):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(rng.normal(brightness, 12, (9, 7, 3)), 0, 255).astype(np.uint8)
            (folder / f"{name}_{i:02d}.png").write_bytes(png(pixels))
    return root


def cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def assert_ends(process_id: int, seconds: float) -> None:
    """Waits for the end of a process that this one did not start."""
    deadline = time.monotonic() + seconds
    while not _has_ended(process_id):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _has_ended(process_id: int) -> bool:
    """Whether a process has ended, also if its parent, which may be anything, never asks."""
    try:
        os.kill(process_id, 0)
        state = pathlib.Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0]
    except ProcessLookupError:
        return True
    except FileNotFoundError:  # macOS; or it has just ended
        return pathlib.Path("/proc/self").exists()
    return state == "Z"
