"""Dynamic loss scaling for float16, whose gradients underflow below 6e-8.

The loss is multiplied by the scale before differentiation and the gradients are divided by it. A
step with a non-finite gradient is skipped and the scale halved; after many finite steps in a row
the scale is doubled. Finiteness is decided over all replicas together: Keras's LossScaleOptimizer
checks the first replica only, so an overflow on another one reaches the weights.
"""

import tensorflow as tf

INITIAL = 2.0**15
MINIMUM = 1.0  # gradients that overflow unscaled are not saved by scaling
GROWTH_INTERVAL = 2000  # finite steps in a row


class LossScale:
    """The scale and its history, as variables, so that checkpoints contain them.

    Attributes:
        scale: () float32, the factor of the loss.
        good_steps: () int64, finite steps since the scale last changed.
    """

    def __init__(self):
        self.scale = tf.Variable(INITIAL, dtype=tf.float32, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def is_at_minimum(self) -> tf.Tensor:
        """() bool, whether a step with non-finite gradients cannot lower the scale any more."""
        return self.scale <= MINIMUM

    def update(self, finite: tf.Tensor) -> None:
        """Adjusts the scale after a step.

        Args:
            finite: () bool, whether all gradients were finite on every replica.
        """
        good_steps = tf.where(finite, self.good_steps + 1, 0)
        grow = good_steps >= GROWTH_INTERVAL
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.scale.assign(tf.maximum(self.scale * factor, MINIMUM))
        self.good_steps.assign(tf.where(grow, tf.zeros_like(good_steps), good_steps))

    def trackables(self) -> dict[str, tf.Variable]:
        return {"loss_scale": self.scale, "loss_scale_good_steps": self.good_steps}
