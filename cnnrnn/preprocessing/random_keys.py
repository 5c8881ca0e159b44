"""Keys of stateless random ops: what a run draws for a sample depends on nothing but its number.

So a resumed run draws what the run without interruption would have, whatever the batch size and the
number of workers.
"""

import tensorflow as tf

# What is drawn. Each has keys of its own, so that e.g. flips tell nothing about dropout.
AUGMENTATION, MIXING, DROPOUT = range(1, 4)


def key(seed: int, purpose: int, number: tf.Tensor) -> tf.Tensor:
    """The key of a sample.

    Args:
        seed: the run's seed.
        purpose: one of the constants above.
        number: () int64, of the sample.

    Returns:
        (2,) int64, a seed for tf.random.stateless_* and tf.image.stateless_*.
    """
    purposed = tf.constant([seed, purpose], tf.int64)
    return tf.random.experimental.stateless_fold_in(purposed, number)


def split(key: tf.Tensor, count: int) -> list[tf.Tensor]:
    """`count` keys from one, for independent draws."""
    return tf.unstack(tf.random.split(key, count))
