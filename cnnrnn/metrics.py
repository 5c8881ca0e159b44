"""Loss, top-1 and top-5 accuracy: per example, summed over a batch, and as means."""

import dataclasses

import numpy as np
import tensorflow as tf

from cnnrnn import shapes


def per_example(logits: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
    """Scores each example.

    Args:
        logits: (B, classes) float32.
        label: (B,) int64.

    Returns:
        "loss": (B,) float32, cross-entropy in nats.
        "top": (B, k) int32, the k = min(5, classes) most likely classes, most likely first; among
            equal logits the class with the lowest index comes first.
        "top1": (B,) float32, 1 where the label is the first of "top", else 0.
        "top5": (B,) float32, 1 where the label is in "top", else 0.
    """
    k = min(shapes.TOP_K, logits.shape[-1])
    top = tf.math.top_k(logits, k).indices  # (B, k)
    # int32 would be compared on the host, for which a GPU's step would wait.
    hits = tf.cast(tf.cast(top, tf.int64) == label[:, None], tf.float32)  # (B, k)
    return {
        "loss": tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits),
        "top": top,
        "top1": hits[:, 0],
        "top5": tf.reduce_sum(hits, axis=-1),
    }


def sums(scores: dict[str, tf.Tensor], weight: tf.Tensor) -> tf.Tensor:
    """Sums the scores of a batch, which can be added over replicas and steps.

    Args:
        scores: from `per_example`.
        weight: (B,) float32, 0 for padding.

    Returns:
        (4,) float32: loss, top-1 hits, top-5 hits, number of examples.
    """
    columns = tf.stack([scores["loss"], scores["top1"], scores["top5"], tf.ones_like(weight)])
    return tf.linalg.matvec(columns, weight)


@dataclasses.dataclass(frozen=True)
class Means:
    """Means over `count` examples: `loss` in nats, `top1` and `top5` accuracy from 0 to 1."""

    loss: float
    top1: float
    top5: float
    count: int

    @classmethod
    def of_sums(cls, totals: np.ndarray) -> "Means":
        """Divides the (4,) totals of `sums` by their number of examples."""
        loss, top1, top5, count = (float(total) for total in totals)
        return cls(loss / count, top1 / count, top5 / count, round(count))

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}  top-1 {self.top1:.2%}  top-5 {self.top5:.2%}"

    def to_json(self) -> dict[str, float]:
        return dataclasses.asdict(self)
