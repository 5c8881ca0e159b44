"""What the network makes of each branch: what becomes of the figures without what it says.

Under a product nothing is learned by setting a branch to zero: that silences the other too. So a
branch is silenced by what keeps its size and takes away what it knows of the image: its outputs
are dealt out among the images at random, or replaced by their mean. What that costs is taken
image by image, so its interval is that of the difference and not that of two figures: which
images there happen to be matters to both alike. A branch that costs nothing is a constant gain.
"""

import dataclasses

import numpy as np

from cnnrnn.evaluation import confidence_intervals

DEALS = 5  # of the outputs among the images


@dataclasses.dataclass(frozen=True)
class Branch:
    """What one branch puts out, over the images.

    Attributes:
        mean: of all outputs.
        magnitude: mean of their absolute values.
        spread: standard deviation across images, averaged over the outputs.
    """

    mean: float
    magnitude: float
    spread: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """The figures with a branch silenced in one way: nats, and shares from 0 to 1.

    `top1_cost` and `top5_cost` are how much less they are than as trained.
    """

    name: str
    loss: float
    top1: float
    top5: float
    top1_cost: confidence_intervals.Interval
    top5_cost: confidence_intervals.Interval

    @property
    def is_significant(self) -> bool:
        """Whether silencing the branch costs more than the choice of images can explain."""
        return self.top1_cost.low > 0 or self.top5_cost.low > 0


def describe(outputs: np.ndarray) -> Branch:
    """Describes outputs (N, 2048)."""
    outputs = outputs.astype(np.float64)
    return Branch(
        mean=float(outputs.mean()),
        magnitude=float(np.abs(outputs).mean()),
        spread=float(outputs.std(axis=0).mean()),
    )


def trials(
    cnn: np.ndarray, rnn: np.ndarray, kernel: np.ndarray, bias: np.ndarray, label: np.ndarray
) -> list[Trial]:
    """Scores the images as they are, and with each branch silenced.

    Args:
        cnn, rnn: the branches' outputs, (N, 2048) each.
        kernel, bias: of the dense layer, (2048, classes) and (classes,).
        label: (N,).

    Returns:
        Five trials, the first with both branches as they are.
    """
    rng = np.random.default_rng(0)
    deals = [rng.permutation(len(label)) for _ in range(DEALS)]

    def score(cnn: np.ndarray, rnn: np.ndarray) -> np.ndarray:
        return _figures((cnn * rnn) @ kernel + bias, label)

    def mean(outputs: np.ndarray) -> np.ndarray:
        return outputs.mean(axis=0, keepdims=True, dtype=np.float64).astype(outputs.dtype)

    as_trained = score(cnn, rnn)

    def trial(name: str, figures: np.ndarray) -> Trial:
        costs = (confidence_intervals.mean(column) for column in (as_trained - figures)[1:])
        return Trial(name, *map(float, figures.mean(axis=1)), *costs)

    rnn_dealt = np.mean([score(cnn, rnn[deal]) for deal in deals], axis=0)
    cnn_dealt = np.mean([score(cnn[deal], rnn) for deal in deals], axis=0)
    return [
        trial("as trained", as_trained),
        trial("RNN dealt out at random", rnn_dealt),
        trial("RNN replaced by its mean", score(cnn, mean(rnn))),
        trial("CNN dealt out at random", cnn_dealt),
        trial("CNN replaced by its mean", score(mean(cnn), rnn)),
    ]


def _figures(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Loss, top-1 and top-5 of each of (N, classes) logits: (3, N) float64."""
    rows = np.arange(len(label))
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, label]
    rank = (logits > logits[rows, label][:, None]).sum(axis=1)
    return np.stack([loss, rank < 1, rank < 5]).astype(np.float64)
