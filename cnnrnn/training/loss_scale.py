"""Dynamic loss scaling, for float16: gradients below 6e-8 would otherwise be zero.

The loss is multiplied by a large number before the gradients are taken, and the gradients are
divided by it. If one is not finite the step is left out and the scale halved; after many good
steps in a row it is doubled. What counts as finite is decided over all replicas together: Keras's
LossScaleOptimizer asks the first one only, so that an overflow on another reaches the weights.
"""

import tensorflow as tf

INITIAL = 2.0**15
GROW_AFTER = 2000  # good steps in a row


class LossScale:
    """The scale and its history, as variables, so that a checkpoint holds them.

    Attributes:
        scale: () float32, what the loss is multiplied by.
        good_steps: () int64, finite steps since the scale changed last.
    """

    def __init__(self):
        self.scale = tf.Variable(INITIAL, dtype=tf.float32, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def update(self, finite: tf.Tensor) -> None:
        """Notes whether a step's gradients, () bool, were finite on every replica."""
        good_steps = tf.where(finite, self.good_steps + 1, 0)
        grow = good_steps >= GROW_AFTER
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.scale.assign(self.scale * factor)
        self.good_steps.assign(tf.where(grow, tf.zeros_like(good_steps), good_steps))

    def trackables(self) -> dict[str, tf.Variable]:
        return {"loss_scale": self.scale, "loss_scale_good_steps": self.good_steps}
