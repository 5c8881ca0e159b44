"""The two phases of training: what is trained, by which optimizer, and what 'best' means."""

import dataclasses
from typing import Literal

import keras

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.models import network as network_lib


@dataclasses.dataclass(frozen=True)
class Phase:
    """What distinguishes one phase. The numbers of a run (epochs, rates) are in `Config`.

    Attributes:
        name: as on the command line.
        index: into the pairs of `Config`.
        train_cnn: whether the CNN is trained or frozen.
        optimizer: its class.
        best_by: the validation metric that decides which epoch is best.
    """

    name: str
    index: int
    train_cnn: bool
    optimizer: type[keras.optimizers.Optimizer]
    best_by: Literal["loss", "top1"]

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
    """The numbers of one phase of a run.

    Attributes:
        epochs: number of epochs.
        batch_size: images per step, summed over all replicas.
        learning_rate: constant.
        steps_per_epoch: training steps between two validations.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    steps_per_epoch: int


def schedule(phase: Phase, config: config_lib.Config, training_images: int) -> Schedule:
    """Takes a phase's numbers from a config.

    An epoch is a whole number of batches; the next epoch continues in the shuffled order.

    Raises:
        UsageError: an epoch, or the training split, is smaller than one batch.
    """
    settings = config.training
    batch_size = settings.batch_size[phase.index]
    images = settings.samples_per_epoch[phase.index] or training_images
    if training_images < batch_size:
        raise errors.UsageError(
            f"there are {training_images} training images, fewer than one batch of "
            f"{batch_size} ({phase.name}): give a smaller --batch_size."
        )
    if images < batch_size:
        raise errors.UsageError(
            f"--samples_per_epoch={images} is less than one batch of {batch_size} ({phase.name})."
        )
    return Schedule(
        epochs=settings.epochs[phase.index],
        batch_size=batch_size,
        learning_rate=config.optimization.learning_rate[phase.index],
        steps_per_epoch=images // batch_size,
    )


def set_trainable(network: network_lib.Network, phase: Phase, config: config_lib.Config) -> None:
    """Freezes and unfreezes layers for a phase. A frozen BatchNorm runs in inference mode."""
    network.model.trainable = True
    network.cnn.trainable = phase.train_cnn
    if phase.train_cnn and config.finetuning.phase2_batchnorm == "frozen":
        for layer in batchnorm_layers(network):
            layer.trainable = False


def batchnorm_layers(network: network_lib.Network) -> list[keras.layers.BatchNormalization]:
    """The BatchNorm layers of the CNN."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in network.cnn.layers if isinstance(layer, kind)]
