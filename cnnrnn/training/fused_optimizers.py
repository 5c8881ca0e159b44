"""Keras's Adam, AdamW and RMSprop, each updated by one operation of TensorFlow per variable.

Keras computes an update from about ten operations, each of which reads and writes whole weights.
TensorFlow's training operations do it in one pass over memory. The formulas are the same; results
differ by rounding.
"""

import keras
import tensorflow as tf


class _FusedAdam:
    """The update of Adam; put before a Keras class that has its state."""

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Adam(_FusedAdam, keras.optimizers.Adam):
    """Keras's Adam, without amsgrad."""


class AdamW(_FusedAdam, keras.optimizers.AdamW):
    """Keras's AdamW, without amsgrad."""


class RMSprop(keras.optimizers.RMSprop):
    """Keras's RMSprop, without momentum and centering.

    TensorFlow's operation writes each step's change of a variable to memory of the variable's size.
    It is no state: its old value is multiplied by 0, and no checkpoint contains it.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        changes = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in variables]
        self._changes = lambda index: changes[index]  # a list would be tracked by checkpoints

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._changes(index).handle,
            lr=tf.cast(learning_rate, variable.dtype),
            rho=self.rho,
            momentum=0.0,
            epsilon=self.epsilon,
            grad=gradient,
        )
