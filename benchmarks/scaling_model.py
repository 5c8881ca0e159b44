"""What training would cost on more devices and images: a model, from measured and assumed figures.

    python -m benchmarks.scaling_model [--per_device=64]

Prints the tables of docs/scaling.md: the model beside what `several_workers` measured, then GPUs.

The model of a step: each worker computes its share; the step takes as long as the slowest of them,
then gradients are summed in a ring, in which each worker sends 2 (n - 1) / n times their bytes.
Reading and decoding go on beside it and count only if they take longer. It has no overlap of
sums with the backward pass, which makes it pessimistic.
"""

import argparse
import dataclasses
import math

from benchmarks import arithmetic

PARAMETERS = {1: 82_395_236, 2: 103_202_188}  # trained in each phase, with 100 classes
# Multiplications and additions per image. Xception: Keras's own count of 8.4 billion
# multiplications of a forward pass at 299x299; the backward pass takes twice that.
FLOPS = {1: arithmetic.rnn(), 2: arithmetic.rnn() + 3 * 2 * 8.4e9}
# Collectives that wait for each other in a step: two for each BatchNorm layer of phase 2.
COLLECTIVES = {1: 4, 2: 84}


@dataclasses.dataclass(frozen=True)
class Devices:
    """Machines that train together.

    Attributes:
        count: devices.
        per_machine: devices of a machine, which share its link to the others and its cores.
        flops: sustained, of a device, per second.
        link: bytes per second between machines, in each direction.
        inside: the same between the devices of a machine.
        latency: seconds of a collective operation, whatever its size.
        decoded: images per second that a machine reads, decodes and resizes.
        jitter: standard deviation of a device's time for a step, relative to the time.
    """

    count: int
    per_machine: int
    flops: float
    link: float
    inside: float
    latency: float
    decoded: float
    jitter: float = 0.02

    @property
    def machines(self) -> int:
        return math.ceil(self.count / self.per_machine)


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of the parts of a step.

    Attributes:
        compute: of the slowest device.
        sums: of the gradients and the BatchNorm statistics.
        input: reading and decoding, beside them.
    """

    compute: float
    sums: float
    input: float

    @property
    def seconds(self) -> float:
        return max(self.compute + self.sums, self.input)

    @property
    def waits_for_images(self) -> bool:
        return self.seconds == self.input


def all_reduced_bytes(phase: int, count: int) -> float:
    """Bytes that each device sends in a step."""
    return 2 * (count - 1) / count * 4 * PARAMETERS[phase]


def ideal_seconds(devices: Devices, phase: int, per_device: int) -> float:
    """Seconds of a step that consists of arithmetic alone."""
    return per_device * FLOPS[phase] / devices.flops


def step(devices: Devices, phase: int, per_device: int) -> Step:
    """The parts of a step.

    Args:
        devices: that train.
        phase: 1, with cached features, or 2.
        per_device: images of each device in a step.
    """
    ideal = ideal_seconds(devices, phase, per_device)
    # An upper bound of the expected largest of n normal deviates.
    slowest = 1 + devices.jitter * math.sqrt(2 * math.log(devices.count)) * (devices.count > 1)
    sums = 0.0
    if devices.count > 1:
        # The ring passes each link between machines once, each device inside a machine once.
        rate = devices.link if devices.machines > 1 else devices.inside
        sums = all_reduced_bytes(phase, devices.count) / rate
        sums += COLLECTIVES[phase] * devices.latency
    images = per_device * min(devices.count, devices.per_machine)
    return Step(ideal * slowest, sums, images / devices.decoded)


# Assumed, not measured: a GPU that sustains 100 TFLOP/s in bfloat16, a tenth of what an H100 is
# specified for, since Xception's separable convolutions are limited by memory; 8 GPUs in a machine
# with 96 cores; 25 GB/s between machines (200 Gbit/s). A core decodes and resizes 220 JPEGs of
# 500x375 and 103 KB a second (measured, AMX machine).
def gpus(count: int) -> Devices:
    return Devices(
        count, per_machine=8, flops=1e14, link=25e9, inside=200e9, latency=50e-6, decoded=96 * 220
    )


# Measured by `several_workers` on two cores of an Intel Xeon with AMX, in bfloat16: phase, batch,
# bytes of a gradient, seconds of a step of one process and of two workers.
MEASURED = (
    (1, 32, 4, 0.97, 2.85),
    (2, 8, 4, 3.81, 6.73),
    (2, 8, 2, 2.97, 5.17),
)
_LATENCY = 5.6e-3  # of a collective of two numbers between two processes there, measured alone


def comparison() -> str:
    """The model beside the measurements; its link is that of the first of them."""
    phase, batch, _, alone, several = MEASURED[0]
    link = all_reduced_bytes(phase, 2) / (several - alone - COLLECTIVES[phase] * _LATENCY)
    lines = [
        f"link: {link / 1e6:,.0f} MB/s, from the first line; latency: {_LATENCY * 1e3:.1f} ms",
        "| phase | batch | bytes of a gradient | one process, s | two workers, s | model, s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for phase, batch, gradient_bytes, alone, several in MEASURED:
        # Each worker has half of the images and half of the cores.
        flops = batch / 2 * FLOPS[phase] / alone
        devices = Devices(2, 1, flops, link * 4 / gradient_bytes, link, _LATENCY, 1e9, jitter=0.0)
        modeled = step(devices, phase, batch // 2).seconds
        cells = (phase, batch, gradient_bytes, *(f"{s:.2f}" for s in (alone, several, modeled)))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


IMAGE_BYTES = 110e3  # mean JPEG of ImageNet-1k, 140 GB / 1.28 million
CHECKPOINT_BYTES = 12 * PARAMETERS[2]  # weights and two moments
CHECKPOINT_MINUTES = 10
PASSES = 10
# Meta counted 419 unexpected interruptions in 54 days of 16,384 GPUs (Llama 3, arXiv 2407.21783).
GPU_HOURS_PER_FAILURE = 16_384 * 54 * 24 / 419
RESTART_MINUTES = 3


def row(images: float, count: int, per_device: int) -> list[str]:
    """One line of the table: phase 2 over a data set, on some GPUs."""
    devices = gpus(count)
    part = step(devices, 2, per_device)
    rate = count * per_device / part.seconds
    hours = PASSES * images / rate / 3600
    failures = hours * count / GPU_HOURS_PER_FAILURE
    lost = failures * (CHECKPOINT_MINUTES / 2 + RESTART_MINUTES) / 60
    ideal = ideal_seconds(devices, 2, per_device)
    return [
        f"{images:,.0f}",
        str(count),
        f"{rate:,.0f}",
        f"{ideal / part.seconds:.0%}",
        f"{all_reduced_bytes(2, count) / 1e6:,.0f} MB" if count > 1 else "0",
        f"{part.sums / part.seconds:.0%}",
        f"{rate * IMAGE_BYTES / devices.machines / 1e6:,.0f} MB/s",
        "yes" if part.waits_for_images else "no",
        f"{hours:,.1f}",
        f"{failures:.2g}",
        f"{lost:.2g}",
    ]


_HEADER = (
    "images",
    "GPUs",
    "images/s",
    "efficiency",
    "sent by each GPU per step",
    "time in all-reduce",
    "read per machine",
    "waits for images",
    f"hours for {PASSES} passes",
    "expected failures",
    "hours lost by them",
)


def table(per_device: int) -> str:
    lines = [_HEADER, ["---:"] * len(_HEADER)]
    lines += [row(images, count, per_device) for images in (1.28e6, 1e8) for count in (1, 8, 64)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--per_device", type=int, default=64, help="images of each GPU in a step")
    arguments = parser.parse_args()
    print(f"{comparison()}\n\n{table(arguments.per_device)}\n")
    for images in (1.28e6, 1e8):
        print(
            f"{images:,.0f} images: {images * IMAGE_BYTES / 1e12:.2f} TB of JPEGs, "
            f"{images * 8192 / 1e9:,.0f} GB of cached features"
        )
    print(f"a checkpoint: {CHECKPOINT_BYTES / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
