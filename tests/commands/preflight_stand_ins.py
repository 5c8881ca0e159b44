"""What the processes of `test_preflight` run: without TensorFlow, so that they start at once."""

import dataclasses
import os
import signal
import time

from cnnrnn import errors
from cnnrnn.commands import preflight
from tests import small_network

TRIAL = preflight.Trial(
    phase="phase1",
    devices="the CPU",
    replicas=1,
    precision="float32",
    kernel="a kernel",
    parameters=1000,
    batch_size=4,
    peak=3_100_000_000,
    available=23_000_000_000,
    features=preflight.Part(rate=5.0, images=600, times=1),  # 120 s
    training=preflight.Part(rate=10.0, images=200, times=3),  # 60 s
    validation=preflight.Part(rate=20.0, images=100, times=3),  # 15 s
)
PHASE2 = dataclasses.replace(
    TRIAL,
    phase="phase2",
    features=None,
    training=preflight.Part(rate=2.0, images=200, times=2),  # 200 s
    validation=preflight.Part(rate=4.0, images=100, times=2),  # 50 s, and 25 s to evaluate
)


def ready_made(phase, settings):
    return {"phase1": TRIAL, "phase2": PHASE2}[phase]


def small_trial(phase, settings):
    """The real trial, on the small network."""

    from cnnrnn.models import network as network_lib
    from cnnrnn.training import dry_run

    network_lib.build = small_network.small_build
    return dry_run.measure(phase, settings)


def killed_in_phase2(phase, settings):
    if phase == "phase2":
        ballast = b"x" * 300_000_000  # to be told of
        time.sleep(1)
        del ballast
        os.kill(os.getpid(), signal.SIGKILL)
    return TRIAL


def out_of_memory(phase, settings):
    raise MemoryError("could not allocate 9 GB")


def wrong_use(phase, settings):
    raise errors.UsageError("no such data set.")


def crashing(phase, settings):
    os._exit(7)


def swapping(phase, settings):
    return dataclasses.replace(ready_made(phase, settings), peak=9 * 10**9, available=8 * 10**9)


def never_ending(phase, settings):
    print(os.getpid(), flush=True)
    time.sleep(60)
