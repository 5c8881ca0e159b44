"""The two phases of training: what trains, with which optimizer, and what 'best' means."""

import dataclasses
from typing import Literal

import keras

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.models import network as network_lib


@dataclasses.dataclass(frozen=True)
class Phase:
    """What sets one phase apart. The numbers of a run (epochs, rates) are in `Config`."""

    name: str
    index: int  # position in the pairs of `Config`
    train_cnn: bool
    optimizer: type[keras.optimizers.Optimizer]
    best_by: Literal["loss", "top1"]  # of validation

    def is_better(self, value: float, best: float) -> bool:
        return value < best if self.best_by == "loss" else value > best

    @property
    def worst(self) -> float:
        return float("inf") if self.best_by == "loss" else float("-inf")


PHASE1 = Phase("phase1", 0, train_cnn=False, optimizer=keras.optimizers.RMSprop, best_by="loss")
PHASE2 = Phase("phase2", 1, train_cnn=True, optimizer=keras.optimizers.Adam, best_by="top1")
BY_NAME = {phase.name: phase for phase in (PHASE1, PHASE2)}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One phase's numbers: how long, how many, how fast."""

    epochs: int
    batch_size: int  # over all replicas together
    learning_rate: float
    steps_per_epoch: int


def schedule(phase: Phase, config: config_lib.Config, training_examples: int) -> Schedule:
    """Picks a phase's numbers out of a config.

    An epoch is a whole number of batches; what is left over comes first in the next one.

    Raises:
        UsageError: there is not one batch in an epoch, or among the images.
    """
    batch_size = config.training.batch_size[phase.index]
    samples = config.training.samples_per_epoch[phase.index] or training_examples
    if training_examples < batch_size:
        raise errors.UsageError(
            f"there are {training_examples} training images, fewer than one batch of "
            f"{batch_size} ({phase.name}): give a smaller --batch_size."
        )
    if samples < batch_size:
        raise errors.UsageError(
            f"--samples_per_epoch={samples} is less than one batch of {batch_size} ({phase.name})."
        )
    return Schedule(
        epochs=config.training.epochs[phase.index],
        batch_size=batch_size,
        learning_rate=config.training.learning_rate[phase.index],
        steps_per_epoch=samples // batch_size,
    )


def set_trainable(network: network_lib.Network, phase: Phase, config: config_lib.Config) -> None:
    """Freezes and unfreezes layers for a phase. A frozen BatchNorm runs in inference mode."""
    network.model.trainable = True
    network.cnn.trainable = phase.train_cnn
    if phase.train_cnn and config.training.phase2_batchnorm == "frozen":
        for layer in batchnorm_layers(network):
            layer.trainable = False


def batchnorm_layers(network: network_lib.Network) -> list[keras.layers.BatchNormalization]:
    return [
        layer for layer in network.cnn.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]  # fmt: skip
