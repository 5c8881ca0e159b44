"""What training takes: time and memory of each phase, measured or estimated. No TensorFlow."""

import dataclasses
from collections.abc import Callable

from cnnrnn.system import memory, progress

# What phase 2 takes on a CPU: the peaks of whole training steps in float32 with 100 classes were
# 4.2, 7.6 and 12.3 GB at batches of 4, 16 and 32, on one line within 0.1 GB.
#
# What does not depend on the batch: four arrays of the size of all parameters (the weights, their
# gradients, Adam's two moments), 1.65 GB with 103 million of them in float32, and beside them
# Python, TensorFlow and the copies that its kernels repack weights into.
_PARAMETER_ARRAYS = 4
_PROGRAM_BYTES = 1.35e9
# An image: every layer's output in the CNN, kept for its backward pass, and what that pass and
# the pipeline hold at the same time. In bfloat16 3.5 GB were measured at a batch of 2.
_IMAGE_BYTES = 0.29e9

PHASES = ("phase1", "phase2")


@dataclasses.dataclass(frozen=True)
class Part:
    """One kind of work in a phase: how fast it goes and how much there is of it."""

    rate: float  # images/s
    images: int
    times: int  # how often they are gone through

    @property
    def seconds(self) -> float:
        return self.images * self.times / self.rate


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """What the trial of a phase found."""

    phase: str
    devices: str
    replicas: int
    precision: str
    kernel: str  # of the LSTM layers
    parameters: int
    batch_size: int
    peak: int | None  # bytes
    available: int | None  # bytes, before the trial took any
    features: Part | None  # None where the cache of features is not used
    training: Part
    validation: Part

    @property
    def seconds(self) -> float:
        return sum(p.seconds for p in (self.features, self.training, self.validation) if p)


def phase_title(phase: str) -> str:
    return f"{phase[:-1]} {phase[-1]}"


def table(trials: list[PhaseCost]) -> str:
    """The trials side by side, a column a phase, and the time of the whole run."""
    rows: list[tuple[str, Callable[[PhaseCost], str]]] = [
        ("images per step", lambda t: f"{t.batch_size} images"),
        ("on", lambda t: f"{t.devices}, {t.precision}"),
        ("LSTM kernel", lambda t: t.kernel),
        ("peak memory", lambda t: memory.text(t.peak)),
        ("available memory", lambda t: memory.text(t.available)),
    ]
    for name, title in (
        ("features", "CNN features, once"),
        ("training", "training"),
        ("validation", "validation"),
    ):
        rows.append((title, lambda t, name=name: _rate(getattr(t, name))))
        rows.append(("  in all", lambda t, name=name: _work(getattr(t, name))))
    rows.append(("time (estimate)", lambda t: progress.duration(t.seconds)))
    cells = [["", *(phase_title(trial.phase) for trial in trials)]]
    cells += [[title, *(describe(trial) for trial in trials)] for title, describe in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    if len(trials) == len(PHASES):
        lines += ["", *_whole_run(trials)]
    return "\n" + "\n".join(lines) + "\n"


def _rate(part: Part | None) -> str:
    return "-" if part is None else f"{part.rate:.1f} images/s"


def _work(part: Part | None) -> str:
    if part is None:
        return "-"
    times = f"{part.times} x " if part.times > 1 else ""
    return f"{times}{part.images:,} images: {progress.duration(part.seconds)}"


def _whole_run(trials: list[PhaseCost]) -> list[str]:
    # The evaluation runs the whole network once over the validation images, as phase 2's
    # validation does.
    last = trials[-1].validation
    evaluation = last.images / last.rate
    seconds = sum(trial.seconds for trial in trials) + evaluation
    return [
        f"evaluation: {progress.duration(evaluation)}",
        f"whole run:  {progress.duration(seconds)} (estimate; features that an earlier run left "
        "are not computed again)",
    ]


def phase2_memory(batch_size: int, parameters: int, *, half: bool, replicas: int = 1) -> float:
    """An estimate of the peak resident memory of phase 2 on a CPU, in bytes.

    Args:
        batch_size: images per step, over all replicas together.
        parameters: how many the network has.
        half: whether its products are of 16 bits.
        replicas: each has its own copy of the parameters and all that goes with them.
    """
    # In a half precision the images' share is half, and the weights are there as copies too.
    bytes_per_parameter = _PARAMETER_ARRAYS * 4 + (2 if half else 0)
    images = batch_size * _IMAGE_BYTES / (2 if half else 1)
    return bytes_per_parameter * parameters * replicas + _PROGRAM_BYTES + images


def largest_phase2_batch(size: float, parameters: int, *, half: bool, replicas: int = 1) -> int:
    """The largest batch for which the estimate of phase 2 stays below a size; 0: there is none."""
    fixed = phase2_memory(0, parameters, half=half, replicas=replicas)
    per_image = phase2_memory(1, parameters, half=half, replicas=replicas) - fixed
    return max(int((size - fixed) / (per_image * replicas)), 0) * replicas
