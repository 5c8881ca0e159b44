"""The result of one epoch of training."""

import dataclasses

from cnnrnn import metrics


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """An epoch's training, or the part of it that this process did.

    Attributes:
        means: over the whole epoch.
        images_per_second: of this process; 0 if an earlier process did all of it.
        waiting: fraction of the time spent waiting for the input pipeline, 0 to 1.
    """

    means: metrics.Means
    images_per_second: float
    waiting: float

    def __str__(self) -> str:
        if not self.images_per_second:
            return str(self.means)
        waiting = f", {self.waiting:.0%} of the time waiting for images"
        return (
            f"{self.means}  ({self.images_per_second:.1f} images/s"
            f"{waiting if self.waiting >= 0.01 else ''})"
        )
