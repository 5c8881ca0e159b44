"""What test_preflight runs in child processes; without TensorFlow, so that they start fast."""

import dataclasses
import os
import pathlib
import signal
import time

from cnnrnn import errors
from cnnrnn.training import cost

PHASE1 = cost.PhaseCost(
    phase="phase1",
    devices="the CPU",
    precision="float32",
    kernel="a kernel",
    batch_size=4,
    peak=3_100_000_000,
    available=23_000_000_000,
    features=cost.Part(rate=5.0, images=600, passes=1),  # 120 s
    training=cost.Part(rate=10.0, images=200, passes=3),  # 60 s
    validation=cost.Part(rate=20.0, images=100, passes=3),  # 15 s
)
PHASE2 = dataclasses.replace(
    PHASE1,
    phase="phase2",
    features=None,
    training=cost.Part(rate=2.0, images=200, passes=2),  # 200 s
    validation=cost.Part(rate=4.0, images=100, passes=2),  # 50 s, and 25 s to evaluate
)


def recorded(phase, config):
    return {"phase1": PHASE1, "phase2": PHASE2}[phase]


def small_dry_run(phase, config):
    """The real dry run, on the small network."""
    from cnnrnn.models import network
    from cnnrnn.training import dry_run
    from tests import small_network

    network.build = small_network.small_build
    return dry_run.measure(phase, config)


def killed_in_phase2(phase, config):
    if phase == "phase2":
        ballast = b"x" * 300_000_000  # shows in the message
        time.sleep(1)
        del ballast
        os.kill(os.getpid(), signal.SIGKILL)
    return PHASE1


def out_of_memory(phase, config):
    raise MemoryError("could not allocate 9 GB")


def out_of_gpu_memory(phase, config):
    raise cost.GpuMemoryError("OOM when allocating tensor")


def wrong_use(phase, config):
    raise errors.UsageError("no such data set.")


def crashing(phase, config):
    os._exit(7)


def swapping(phase, config):
    return dataclasses.replace(recorded(phase, config), peak=9 * 10**9, available=8 * 10**9)


def on_a_small_gpu(phase, config):
    return dataclasses.replace(swapping(phase, config), on_gpu=True)


def never_ending(phase, config):
    """Writes its process id to $CHILD_ID_FILE and sleeps."""
    pathlib.Path(os.environ["CHILD_ID_FILE"]).write_text(str(os.getpid()))
    time.sleep(60)


def assert_measured(found: cost.PhaseCost) -> None:
    """The dry run of phase 2 with `small_config`, in whichever process, measured all parts."""
    assert (found.batch_size, found.precision, found.features) == (2, "float32", None)
    assert (found.training.images, found.training.passes) == (18, 2)
    assert (found.validation.images, found.validation.passes) == (9, 2)
    assert found.training.rate > 0 and found.validation.rate > 0
    assert 10**8 < found.peak < 10**10
