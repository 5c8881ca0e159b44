"""Loss, top-1 and top-5, as sums that add up over replicas and steps without rounding tricks."""

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
        "loss" (B,) cross-entropy in nats; "top" (B, k) int32, the k = min(5, classes) most likely
        classes, most likely first; "top1" and "top5" (B,) float32, 1 where the label is first or
        among them.
    """
    k = min(shapes.TOP_K, logits.shape[-1])
    top = tf.math.top_k(logits, k).indices  # (B, k)
    hits = tf.cast(top == tf.cast(label, tf.int32)[:, None], tf.float32)  # (B, k)
    return {
        "loss": tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits),
        "top": top,
        "top1": hits[:, 0],
        "top5": tf.reduce_sum(hits, axis=-1),
    }


def sums(scores: dict[str, tf.Tensor], weight: tf.Tensor) -> tf.Tensor:
    """Adds up a batch: (4,) float32 of loss, top-1 hits, top-5 hits, examples."""
    columns = tf.stack([scores["loss"], scores["top1"], scores["top5"], tf.ones_like(weight)])
    return tf.linalg.matvec(columns, weight)


@dataclasses.dataclass(frozen=True)
class Means:
    """Means over `count` examples. `loss` in nats; `top1` and `top5` from 0 to 1."""

    loss: float
    top1: float
    top5: float
    count: int

    @classmethod
    def of_sums(cls, totals: np.ndarray) -> "Means":
        """From the (4,) totals of `sums`."""
        loss, top1, top5, count = (float(total) for total in totals)
        return cls(loss / count, top1 / count, top5 / count, round(count))

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}  top-1 {self.top1:.2%}  top-5 {self.top5:.2%}"

    def to_json(self) -> dict[str, float]:
        return dataclasses.asdict(self)
