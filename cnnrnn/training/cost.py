"""Cost of training: measured time and memory of each phase, estimated memory of phase 2.

Needs no TensorFlow: preflight's parent process leaves the memory to its children.
"""

import dataclasses
import math
from collections.abc import Callable

from cnnrnn import shapes
from cnnrnn.system import memory, progress

PHASES = ("phase1", "phase2")
# In the line that is printed when a phase starts or resumes training; `verify-resume` waits for it.
PHASE_STARTS = "trainable parameters"

# Peak memory of whole training steps of phase 2 on a CPU in float32 with 100 classes: 4.2, 7.6 and
# 12.3 GB at batch sizes 4, 16 and 32, linear within 0.1 GB.
#
# Independent of the batch size: four arrays of the size of all parameters (weights, gradients,
# Adam's two moments), 1.65 GB for 103 million parameters in float32; Python, TensorFlow, and the
# copies into which its kernels repack weights.
_PARAMETER_ARRAYS = 4
_PROGRAM_BYTES = 1.35e9
# Per image: the outputs of all layers of the CNN, kept for the backward pass, and the temporaries
# of that pass and of the pipeline, for images of 299x299. In bfloat16 3.5 GB were measured at batch
# size 2.
_IMAGE_BYTES = 0.29e9


@dataclasses.dataclass(frozen=True)
class Part:
    """One kind of work in a phase.

    Attributes:
        rate: images/s.
        images: per pass.
        passes: over these images.
    """

    rate: float
    images: int
    passes: int

    @property
    def seconds_per_pass(self) -> float:
        return self.images / self.rate

    @property
    def seconds(self) -> float:
        return self.images * self.passes / self.rate


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """What a dry run of a phase measured.

    Attributes:
        phase: its name.
        devices: that it ran on.
        precision: of the products.
        kernel: implementation of the LSTM layers.
        batch_size: images per step.
        peak: memory in bytes, None if unknown.
        available: memory in bytes before the dry run, None if unknown.
        on_gpu: whether both are GPU memory: the peak of the one that used most, and the size of the
            smallest.
        features: None if the feature cache is not used.
        training, validation: the other parts.
        limit: seconds after which --max_minutes ends the training; a validation follows.
    """

    phase: str
    devices: str
    precision: str
    kernel: str
    batch_size: int
    peak: int | None
    available: int | None
    features: Part | None
    training: Part
    validation: Part
    on_gpu: bool = False
    limit: float = math.inf

    @property
    def seconds(self) -> float:
        features = self.features.seconds if self.features else 0.0
        whole = self.training.seconds + self.validation.seconds
        # A validation follows the limit.
        return features + min(whole, self.limit + self.validation.seconds_per_pass)


class GpuMemoryError(MemoryError):
    """The memory of a GPU is exhausted."""


def phase_title(phase: str) -> str:
    """'phase1' -> 'phase 1'."""
    return f"{phase[:-1]} {phase[-1]}"


def table(costs: list[PhaseCost]) -> str:
    """A column for each phase, and the time of the whole run."""
    on_gpu = costs[0].on_gpu
    lines: list[tuple[str, Callable[[PhaseCost], str]]] = [
        ("batch size", lambda c: f"{c.batch_size} images"),
        ("devices", lambda c: f"{c.devices}, {c.precision}"),
        ("LSTM kernel", lambda c: c.kernel),
        ("peak GPU memory" if on_gpu else "peak memory", lambda c: memory.text(c.peak)),
        ("GPU memory" if on_gpu else "available memory", lambda c: memory.text(c.available)),
    ]
    for name, title in (
        ("features", "CNN features, once"),
        ("training", "training"),
        ("validation", "validation"),
    ):
        lines.append((title, lambda c, name=name: _rate(getattr(c, name))))
        lines.append(("  total", lambda c, name=name: _total(getattr(c, name))))
    if any(math.isfinite(c.limit) for c in costs):
        lines.append(("--max_minutes", lambda c: _limit(c.limit)))
    lines.append(("time (estimate)", lambda c: progress.duration(c.seconds)))
    cells = [["", *(phase_title(c.phase) for c in costs)]]
    cells += [[title, *(describe(c) for c in costs)] for title, describe in lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    text = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    if len(costs) == len(PHASES):
        text += ["", *_whole_run(costs)]
    return "\n" + "\n".join(text) + "\n"


def _limit(seconds: float) -> str:
    return progress.duration(seconds) if math.isfinite(seconds) else "-"


def _rate(part: Part | None) -> str:
    return "-" if part is None else f"{part.rate:.1f} images/s"


def _total(part: Part | None) -> str:
    if part is None:
        return "-"
    passes = f"{part.passes} x " if part.passes > 1 else ""
    return f"{passes}{part.images:,} images: {progress.duration(part.seconds)}"


def _whole_run(costs: list[PhaseCost]) -> list[str]:
    # The evaluation runs the whole network once over the validation images, as phase 2's
    # validation does.
    evaluation = costs[-1].validation.seconds_per_pass
    seconds = sum(c.seconds for c in costs) + evaluation
    return [
        f"evaluation: {progress.duration(evaluation)}",
        f"whole run:  {progress.duration(seconds)} (estimate; features cached by an earlier run "
        "are not computed again)",
    ]


def shared_evenly(batch_size: int, devices: int) -> int:
    """The smallest batch size from `batch_size` on that is a multiple of the number of devices."""
    return -(-batch_size // devices) * devices


def phase2_memory(
    batch_size: int,
    parameters: int,
    *,
    half: bool,
    replicas: int = 1,
    more_arrays: int = 0,
    image_size: int = shapes.IMAGE_SIZE,
) -> float:
    """Estimated peak memory of phase 2 on a CPU, in bytes.

    Args:
        batch_size: images computed at once, summed over all replicas.
        parameters: of the network.
        half: whether products are computed in 16 bits.
        replicas: each has its own copy of the parameters, gradients and moments.
        more_arrays: of the size of all parameters, which --ema and --accumulation_steps need.
        image_size: the largest one of the CNN; 0 for a network without a CNN.
    """
    # In 16 bits an image takes half as much, and the weights exist as 16-bit copies, too.
    bytes_per_parameter = (_PARAMETER_ARRAYS + more_arrays) * 4 + (2 if half else 0)
    pixels = (image_size / shapes.IMAGE_SIZE) ** 2
    images = batch_size * _IMAGE_BYTES * pixels / (2 if half else 1)
    return bytes_per_parameter * parameters * replicas + _PROGRAM_BYTES + images


def largest_phase2_batch(
    size: float, parameters: int, *, replicas: int = 1, **settings: int | bool
) -> int:
    """The largest batch size whose estimate stays below `size` bytes; 0: none, or it is not known.

    Args:
        size: bytes.
        parameters, replicas, settings: as for `phase2_memory`.
    """
    fixed, one = (
        phase2_memory(count, parameters, replicas=replicas, **settings) for count in (0, 1)
    )
    per_image = one - fixed
    if per_image == 0:
        return 0
    return max(int((size - fixed) / (per_image * replicas)), 0) * replicas
