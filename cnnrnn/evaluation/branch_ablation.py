"""Branch ablation: how much accuracy drops without the information of one branch.

If the branches are multiplied, setting one to zero would remove the other too. A branch is ablated
by replacing its outputs by others of the same scale that do not depend on the image: its own
outputs permuted across images, or their mean over all images. The drop is computed per image, so
that its interval is that of a paired difference. A branch whose ablation costs nothing is a
constant gain.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import scipy.special

from cnnrnn import shapes
from cnnrnn.evaluation import confidence_intervals

PERMUTATIONS = 5  # averaged over, for each branch
BRANCHES = ("RNN", "CNN")


@dataclasses.dataclass(frozen=True)
class OutputStatistics:
    """Statistics of one branch's outputs over all images.

    Attributes:
        mean: mean over images and units.
        mean_abs: mean of the absolute values.
        std: standard deviation across images, averaged over units.
    """

    mean: float
    mean_abs: float
    std: float


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Metrics with one branch ablated, or with none.

    Attributes:
        name: which branch, and how.
        loss: mean cross-entropy in nats.
        top1: accuracy from 0 to 1.
        top5: likewise.
        top1_drop: accuracy as trained minus `top1`, paired by image.
        top5_drop: likewise.
    """

    name: str
    loss: float
    top1: float
    top5: float
    top1_drop: confidence_intervals.Interval
    top5_drop: confidence_intervals.Interval

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the drop in top-1 lies above 0."""
        return self.top1_drop.low > 0

    @property
    def is_gain(self) -> bool:
        """Whether the interval of the drop in top-1 lies below 0."""
        return self.top1_drop.high < 0


def statistics(outputs: np.ndarray) -> OutputStatistics:
    """Computes the statistics of outputs (N, 2048)."""
    exact = np.float64
    return OutputStatistics(
        mean=float(outputs.mean(dtype=exact)),
        mean_abs=float(np.abs(outputs).mean(dtype=exact)),
        std=float(outputs.std(axis=0, dtype=exact).mean()),
    )


def ablations(
    outputs: dict[str, np.ndarray],
    fuse: Callable[[np.ndarray, np.ndarray], np.ndarray],
    kernel: np.ndarray,
    bias: np.ndarray,
    label: np.ndarray,
    branches: Iterable[str] = BRANCHES,
) -> list[Ablation]:
    """Scores the images as trained and with each branch ablated.

    Args:
        outputs: of "CNN" and "RNN", (N, 2048) each.
        fuse: the network's fusion of CNN and RNN, (N, 2048) twice -> (N, width).
        kernel: of the dense layer, (width, classes).
        bias: of the dense layer, (classes,).
        label: true classes, (N,).
        branches: those that the network has.

    Returns:
        First, as trained; then for each branch its outputs permuted (`permuted_name`), and replaced
        by their mean.
    """
    rng = np.random.default_rng(0)
    permutations = [rng.permutation(len(label)) for _ in range(PERMUTATIONS)]

    def score(**changed: np.ndarray) -> np.ndarray:
        each = outputs | changed
        return scores(fuse(each["CNN"], each["RNN"]) @ kernel + bias, label)

    as_trained = score()

    def ablation(name: str, ablated: np.ndarray) -> Ablation:
        drops = (
            confidence_intervals.paired_difference(column) for column in (as_trained - ablated)[1:]
        )
        return Ablation(name, *map(float, ablated.mean(axis=1)), *drops)

    none = confidence_intervals.Interval(0.0, 0.0, 0.0)
    found = [Ablation("as trained", *map(float, as_trained.mean(axis=1)), none, none)]
    for branch in branches:
        own = outputs[branch]
        permuted = [score(**{branch: own[order]}) for order in permutations]
        found.append(ablation(permuted_name(branch), np.mean(permuted, axis=0)))
        average = own.mean(axis=0, dtype=np.float64).astype(own.dtype)
        constant = score(**{branch: np.broadcast_to(average, own.shape)})
        found.append(ablation(f"{branch} replaced by its mean", constant))
    return found


def permuted_name(branch: str) -> str:
    """The name of the ablation that permutes the outputs of a branch."""
    return f"{branch} permuted across images"


def scores(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Loss, top-1 and top-5 of each image, as `metrics.per_example` defines them, in NumPy.

    Among equal logits the class with the lowest index ranks first, as in tf.math.top_k.

    Args:
        logits: (N, classes).
        label: (N,).

    Returns:
        (3, N) float64.
    """
    own = np.take_along_axis(logits, label[:, np.newaxis], axis=1)  # (N, 1)
    loss = scipy.special.logsumexp(logits, axis=1) - own[:, 0]
    is_earlier = np.arange(logits.shape[1]) < label[:, np.newaxis]
    rank = np.sum((logits > own) | ((logits == own) & is_earlier), axis=1)  # 0 for the first
    return np.stack([loss, rank < 1, rank < shapes.TOP_K]).astype(np.float64)
