"""The order of training: which image each sample of a run is, as a pure function of its position.

So a resumed run needs a few integers and no iterator state, skipping costs nothing, and shuffling
needs no buffer. When an epoch is shorter than the data, or not a multiple of the batch size, the
next one continues where it ended.
"""

import abc
import dataclasses

import numpy as np
import tensorflow as tf

from cnnrnn.system import devices as devices_lib

_FEW = 256
_BITS_OF_POWERS_OF_4 = 0x5555555555555555


class Order(abc.ABC):
    """The images, one after another. Phase 2 continues in the order after phase 1."""

    @abc.abstractmethod
    def index_at(self, position: tf.Tensor) -> tf.Tensor:
        """The index in the split of the sample at a position: () int64 -> () int64."""

    @abc.abstractmethod
    def visits_before(self, position: tf.Tensor) -> tf.Tensor:
        """How often the image of a sample was drawn before: () int64 position -> () int64."""

    def indices_at(self, start: int, count: int) -> np.ndarray:
        """(count,) indices of the samples at `start` and the positions after it."""
        with devices_lib.on_cpu():
            positions = tf.range(start, start + count, dtype=tf.int64)
            return np.array([self.index_at(position).numpy() for position in positions])


@dataclasses.dataclass(frozen=True)
class Shuffled(Order):
    """Each image once in every pass.

    The sample at position p has the index `index_shuffle(p mod N)` in permutation p // N.

    Attributes:
        size: number of images, N.
        seed: the run's seed.
    """

    size: int
    seed: int

    def index_at(self, position: tf.Tensor) -> tf.Tensor:
        permutation, offset = position // self.size, position % self.size
        key = _key(self.seed, permutation)
        return _shuffled(offset, key, tf.constant(self.size - 1, tf.int64))

    def visits_before(self, position: tf.Tensor) -> tf.Tensor:
        return position // self.size


class Balanced(Order):
    """Each class equally often, and within a class each image equally often.

    Of K classes, each comes once in a block of K positions, in a permuted order. The b-th sample of
    a class with n images is in pass b // n over these, which has a permutation of its own. Classes
    without images do not count.

    Args:
        labels: (N,) int64, of the images.
        seed: the run's seed.
    """

    def __init__(self, labels: np.ndarray, seed: int):
        _, counts = np.unique(labels, return_counts=True)
        self._by_class = np.argsort(labels, kind="stable")  # the indices, class after class
        self._counts, self._starts = counts, np.cumsum(counts) - counts
        self._seed = seed

    def index_at(self, position: tf.Tensor) -> tf.Tensor:
        chosen, visit, count = self._class_at(position)
        with tf.init_scope():
            starts, by_class = tf.constant(self._starts), tf.constant(self._by_class)
        # Keys of the classes are random, those of the blocks small: they do not coincide.
        seed = tf.stack([tf.constant(self._seed, tf.int64), chosen])
        key = tf.random.experimental.stateless_fold_in(seed, visit // count)
        return tf.gather(
            by_class, tf.gather(starts, chosen) + _shuffled(visit % count, key, count - 1)
        )

    def visits_before(self, position: tf.Tensor) -> tf.Tensor:
        _, visit, count = self._class_at(position)
        return visit // count

    def _class_at(self, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The class of a sample, how many came before it, how many images it has: () int64 each."""
        classes = len(self._counts)
        block, offset = position // classes, position % classes
        key = _key(self._seed, block)
        chosen = _shuffled(offset, key, tf.constant(classes - 1, tf.int64))
        with tf.init_scope():
            counts = tf.constant(self._counts)
        return chosen, block, tf.gather(counts, chosen)


def order(sampling: str, labels: np.ndarray, seed: int) -> Order:
    """The order that --sampling asks for.

    Args:
        sampling: 'shuffle' or 'balanced'.
        labels: (N,) int64, of the training images.
        seed: the run's seed.
    """
    return Balanced(labels, seed) if sampling == "balanced" else Shuffled(len(labels), seed)


def _key(seed: int, number: tf.Tensor) -> tf.Tensor:
    """The key, (2,) int64, of the permutation with a number, () int64.

    `index_shuffle` uses the lowest eight bits or a few more of either. Keys below 256 stay as they
    are, so that existing runs keep their order; larger ones are hashed.
    """
    key = tf.stack([tf.constant(seed, tf.int64), number])
    hashed = tf.random.stateless_uniform((2,), key, None, None, tf.int64)
    return tf.where(tf.reduce_all(key < _FEW), key, hashed)


def _shuffled(offset: tf.Tensor, key: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """The number at an offset of a permutation of 0 to `last`, chosen by a key, (2,) int64."""
    # If `last` is 4^8 or a higher power of 4, index_shuffle never returns it: one number more is
    # permuted then, and replaced by that at its own offset.
    is_power_of_4 = (last & (last - 1) == 0) & (last & _BITS_OF_POWERS_OF_4 != 0)
    size = last + tf.cast(is_power_of_4 & (last >= 4**8), tf.int64)
    number = tf.random.experimental.index_shuffle(offset, key, size)
    again = tf.random.experimental.index_shuffle(size, key, size)
    return tf.where(number > last, again, number)
