"""The two phases of training: what is trained, for how long, and what 'best' means."""

import dataclasses
from typing import Literal

import keras

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.models import cnn_branch
from cnnrnn.models import network as network_lib


@dataclasses.dataclass(frozen=True)
class Phase:
    """What distinguishes one phase. The numbers of a run (epochs, rates) are in `Config`.

    Attributes:
        name: as on the command line.
        index: into the pairs of `Config`.
        train_cnn: whether the CNN is trained or frozen.
        best_by: the validation metric that decides which epoch is best.
    """

    name: str
    index: int
    train_cnn: bool
    best_by: Literal["loss", "top1"]

    def is_better(self, value: float, best: float) -> bool:
        return value < best if self.best_by == "loss" else value > best

    @property
    def worst(self) -> float:
        return float("inf") if self.best_by == "loss" else float("-inf")


PHASE1 = Phase("phase1", 0, train_cnn=False, best_by="loss")
PHASE2 = Phase("phase2", 1, train_cnn=True, best_by="top1")
BY_NAME = {phase.name: phase for phase in (PHASE1, PHASE2)}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The numbers of one phase of a run.

    Attributes:
        epochs: number of epochs.
        batch_size: images per step, summed over all replicas.
        learning_rate: the highest one.
        steps_per_epoch: training steps between two validations.
        kind: how the rate changes over the steps.
        warmup_steps: in which the rate rises linearly from 0.
        batchnorm_momentum: of the moving averages, where the CNN is trained.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    steps_per_epoch: int
    kind: str = "constant"
    warmup_steps: int = 0
    batchnorm_momentum: float = 0.99

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def schedule(phase: Phase, config: config_lib.Config, training_images: int) -> Schedule:
    """Takes a phase's numbers from a config.

    An epoch is a whole number of batches; the next epoch continues in the shuffled order.

    Raises:
        UsageError: an epoch, or the training split, is smaller than one batch; the warm-up of a
            falling rate takes all steps.
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
            f"--samples_per_epoch={images} is less than one batch of {batch_size} ({phase.name}): "
            "raise it, or lower --batch_size."
        )
    steps_per_epoch = images // batch_size
    kind = config.optimization.schedule[phase.index]
    warmup_epochs = config.optimization.warmup_epochs[phase.index]
    numbers = Schedule(
        epochs=settings.epochs[phase.index],
        batch_size=batch_size,
        learning_rate=config.optimization.learning_rate[phase.index],
        steps_per_epoch=steps_per_epoch,
        kind=kind,
        warmup_steps=round(warmup_epochs * steps_per_epoch),
        batchnorm_momentum=_batchnorm_momentum(config, steps_per_epoch),
    )
    if kind == "cosine" and numbers.warmup_steps >= numbers.total_steps:
        raise errors.UsageError(
            f"--warmup_epochs={warmup_epochs:g} takes all {numbers.epochs} epochs of {phase.name}, "
            "so that --schedule=cosine never falls: lower it, or raise --epochs."
        )
    return numbers


def _batchnorm_momentum(config: config_lib.Config, steps_per_epoch: int) -> float:
    momentum = config.finetuning.batchnorm_momentum
    return max(1 - 10 / steps_per_epoch, 0.9) if momentum == "auto" else float(momentum)


def check_layers(network: network_lib.Network, config: config_lib.Config) -> None:
    """Raises UsageError if --unfreeze_from is not a layer of the CNN that has weights."""
    name = config.finetuning.unfreeze_from
    if name in ("", *(layer.name for layer in network.cnn.layers if layer.weights)):
        return
    blocks = [
        [layer for layer in block if layer.weights] for block in cnn_branch.blocks(network.cnn)
    ]
    first = ", ".join(block[0].name for block in blocks if block)
    raise errors.UsageError(
        f"--unfreeze_from={name} is not a layer of the CNN with weights. The first ones of its "
        f"blocks are {first}."
    )


def set_trainable(network: network_lib.Network, phase: Phase, config: config_lib.Config) -> None:
    """Freezes and unfreezes layers for a phase. A frozen BatchNorm runs in inference mode.

    Raises:
        UsageError: see `check_layers`.
    """
    check_layers(network, config)
    network.model.trainable = True
    # A CNN that the model leaves out is frozen, too. Without updates of its BatchNorm, TensorFlow
    # removes its computation from a step.
    train_cnn = phase.train_cnn and network.uses_cnn
    network.cnn.trainable = train_cnn
    settings, trained = config.finetuning, False
    # Layer by layer: Keras ignores the assignment of the value that a model already has, even if
    # layers of the model have another one.
    for layer in network.cnn.layers:
        trained = trained or settings.unfreeze_from in ("", layer.name)
        layer.trainable = train_cnn and trained
    if settings.phase2_batchnorm == "frozen":
        for layer in batchnorm_layers(network):
            layer.trainable = False


def set_batchnorm_momentum(network: network_lib.Network, schedule: Schedule) -> None:
    """Sets the momentum of the CNN's moving averages, before a training step is traced."""
    for layer in batchnorm_layers(network):
        layer.momentum = schedule.batchnorm_momentum


def batchnorm_layers(network: network_lib.Network) -> list[keras.layers.BatchNormalization]:
    """The BatchNorm layers of the CNN."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in network.cnn.layers if isinstance(layer, kind)]
