"""One phase of training, ready to step: random weights, the images of a config."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline, training_samples
from cnnrnn.system import console, pipelined
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import cost, steps, train_state

_TIMED_SECONDS = 3.0
_TIMED_STEPS = 2  # at least


class Session:
    """A phase's network, optimizer and compiled step, created as training creates them.

    Args:
        phase: which phase. In phase 1 features of the CNN come from the batches, as from the
            feature cache.
        config: its precision may be 'auto'.

    Attributes:
        config: with the precision resolved.
        data: the images.
        strategy: over the devices of this process.
        batch_size: the phase's, rounded up to a multiple of the number of replicas.
        state: network, optimizer, loss scale.
        step: one training step.
    """

    def __init__(self, phase: phases.Phase, config: config_lib.Config):
        self._phase = phase
        self.strategy = devices_lib.strategy(config.run.logical_cpus)
        with console.captured():  # each measurement would report on precision and data
            precision = devices_lib.precision(config.training.precision)
            self.config = config.replace(precision=precision)
            self.data = dataset_lib.load(self.config)
        replicas = self.strategy.num_replicas_in_sync
        self.batch_size = cost.shared_evenly(config.training.batch_size[phase.index], replicas)
        network = train_state.build_network(len(self.data.class_names), self.config, self.strategy)
        self.state = train_state.create(network, phase, self.config, self.strategy)
        self.step = steps.make_train_step(self.state, self.strategy, self.batch_size)

    @property
    def variables(self) -> list[tf.Variable]:
        """All variables that a step changes."""
        return [*self.state.network.model.variables, *self.state.optimizer.variables]

    def batches(self, size: int | None = None, *, cached: bool | None = None) -> Iterator:
        """Batches of the phase's pipeline.

        Args:
            size: images per batch; None: those of a training step.
            cached: whether features replace the RGB view; None: as in the phase.
        """
        cached = not self._phase.train_cnn if cached is None else cached
        width = self.state.network.cnn.output.shape[-1]
        batches = input_pipeline.training(
            self.data.train,
            training_samples.TrainingSamples.of(
                self.config, self.data.train, train_cnn=self._phase.train_cnn, dropout_width=width
            ),
            batch_size=size or self.batch_size,
            start=0,
            features=input_pipeline.ConstantFeatures(width) if cached else None,
        )
        return input_pipeline.distribute(batches, self.strategy)

    def losses(self, count: int) -> list[float]:
        """The losses of training steps, one after another, on the same batches in each call."""
        sums = [self.step(batch)[0].numpy() for batch in itertools.islice(self.batches(), count)]
        return [float(total[0] / total[3]) for total in sums]


def rate(step: Callable[[Any], Any], batches: Iterator, batch_size: int) -> float:
    """Images/s of a step, once it is compiled."""
    pipelined.read(step(next(batches)))
    start, count = time.monotonic(), 0
    while count < _TIMED_STEPS or time.monotonic() - start < _TIMED_SECONDS:
        outputs = step(next(batches))
        count += 1
        if count % _TIMED_STEPS == 0:
            pipelined.read(outputs)  # a GPU's queue of steps stays short
    pipelined.read(outputs)
    return count * batch_size / (time.monotonic() - start)
