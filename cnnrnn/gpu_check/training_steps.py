"""Training steps of one phase in one precision: loss, images/s, memory, waiting for images."""

import itertools
import math

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.gpu_check import measurement
from cnnrnn.gpu_check import session as session_lib
from cnnrnn.system import gpu_memory, memory


def measure(config: config_lib.Config, phase_name: str) -> measurement.Measurement:
    """Trains a few steps; see `session.Session`.

    Passes if all losses are finite. Figures: "losses" of the first steps, "images_per_second" with
    the input pipeline and "in_memory" without, "waiting" (the fraction of the time that the devices
    wait for images), "peak" bytes of memory, of the GPU that uses most or else of the process.
    """
    session = session_lib.Session(phases.BY_NAME[phase_name], config)
    losses = session.losses(3)
    batches = session.batches()
    in_memory = session_lib.rate(session.step, itertools.repeat(next(batches)), session.batch_size)
    with_pipeline = session_lib.rate(session.step, batches, session.batch_size)
    waiting = max(0.0, 1 - with_pipeline / in_memory)
    peak = gpu_memory.peak() or memory.peak()
    return measurement.Measurement(
        all(map(math.isfinite, losses)),
        f"{with_pipeline:.1f} images/s, {in_memory:.1f} without the pipeline "
        f"({waiting:.0%} waiting), {memory.text(peak)}, loss {losses[0]:.4f}",
        {
            "losses": losses,
            "batch_size": session.batch_size,
            "images_per_second": with_pipeline,
            "in_memory": in_memory,
            "waiting": waiting,
            "peak": peak,
        },
    )
