"""The sizes of the CNN's input over the steps of a phase."""

import dataclasses

from cnnrnn import config as config_lib
from cnnrnn import phases, shapes
from cnnrnn.settings import image_sizes

# Cost of a validation image, which has no backward pass, relative to a training image of its size.
_VALIDATION_COST = 1 / 3


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive steps with one size: from step `start` up to, but not including, step `end`."""

    size: int
    start: int
    end: int


class SizeSchedule:
    """Divides the steps of a phase into parts of one size each.

    Attributes:
        parts: in order, each of at least one step.

    Args:
        shares: sizes and their shares of the steps, in order.
        total_steps: of the phase.
        eval_size: of validation.
    """

    def __init__(
        self,
        shares: tuple[image_sizes.SizeShare, ...],
        total_steps: int,
        eval_size: int = shapes.IMAGE_SIZE,
    ):
        self._eval_size = eval_size
        ends, done = [], 0.0
        for each in shares:
            done += each.share
            ends.append(round(done * total_steps))
        starts = [0, *ends[:-1]]
        self.parts = [
            Part(each.size, start, end)
            for each, start, end in zip(shares, starts, ends, strict=True)
            if start < end  # a share of less than half a step
        ]

    @classmethod
    def of(
        cls, phase: phases.Phase, config: config_lib.Config, schedule: phases.Schedule
    ) -> "SizeSchedule":
        """The sizes that --cnn_image_size gives a phase."""
        shares = image_sizes.parse(config.training.cnn_image_size)[phase.index]
        return cls(shares, schedule.total_steps, config.data.eval_image_size or shapes.IMAGE_SIZE)

    def constant(self) -> "SizeSchedule":
        """One size throughout: with cached features, or without a CNN, the size costs nothing."""
        share = image_sizes.SizeShare(self._eval_size, 1.0)
        return SizeSchedule((share,), self.parts[-1].end, self._eval_size)

    def at(self, step: int) -> Part:
        """The part that a step belongs to; the last one for steps after the end."""
        return next((part for part in self.parts if step < part.end), self.parts[-1])

    def cost(self, start: int, end: int, step: int) -> float:
        """The cost of the steps from `start` to `end - 1`, in steps of the size at `step`.

        The CNN's cost, which is most of it where sizes change, is proportional to the number of
        pixels.
        """
        size = self.at(step).size
        return sum(
            max(min(part.end, end) - max(part.start, start), 0) * (part.size / size) ** 2
            for part in self.parts
        )

    def validation_cost(self, step: int) -> float:
        """The cost of a validation image, in training images of the size at `step`."""
        return _VALIDATION_COST * (self._eval_size / self.at(step).size) ** 2
