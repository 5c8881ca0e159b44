"""The training loss: cross-entropy with label smoothing, mixed labels and class weights."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class TrainingLoss:
    """The loss of each training example. Validation uses plain cross-entropy in any case.

    Attributes:
        label_smoothing: share of each label that is spread evenly over all classes.
        class_weights: (classes,) float32, factor of the loss of each label; None: 1.
    """

    label_smoothing: float = 0.0
    class_weights: np.ndarray | None = None

    def per_example(
        self, cross_entropy: tf.Tensor, logits: tf.Tensor, batch: dict[str, tf.Tensor]
    ) -> tf.Tensor:
        """The loss in nats, (B,) float32; without options, `cross_entropy` itself.

        Args:
            cross_entropy: (B,) float32, of the label.
            logits: (B, classes) float32.
            batch: "label" (B,) int64. With "other_label" (B,) int64 and "share" (B,) float32 the
                loss is `share` of that of the label and the rest of that of the other label, each
                with the weight of its own class.
        """
        loss = self._of_label(cross_entropy, logits, batch["label"])
        if "other_label" in batch:
            share, other = batch["share"], batch["other_label"]
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(other, logits)
            loss = share * loss + (1 - share) * self._of_label(cross_entropy, logits, other)
        return loss

    def _of_label(self, loss: tf.Tensor, logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        if self.label_smoothing:
            # The cross-entropy with the same share for each class.
            even = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        if self.class_weights is not None:
            loss *= tf.gather(tf.constant(self.class_weights, tf.float32), label)
        return loss
