"""What a phase says as it opens: its pace and memory, and whether what follows will fit."""

import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.system import memory, progress
from cnnrnn.training import cost, steps

_TIMED_STEPS = 3
# What an image costs in validation, where there is no backward pass, in images of training.
_VALIDATION_COST = 1 / 3


class TellingStep:
    """A training step that tells once how the phase runs, when its fourth step is done.

    The first step is not timed, since TensorFlow compiles in it, nor is what lies between two
    epochs. Otherwise it is the step itself: the loop that calls it sees no difference.

    Args:
        step: what `steps.make_train_step` returns.
        phase: which phase.
        schedule: its numbers.
        steps_done: how many steps of the phase were done before.
        validation_images: how many are gone through after each epoch.
    """

    def __init__(
        self,
        step: Callable[[steps.Batch], tuple[tf.Tensor, tf.Tensor]],
        phase: phases.Phase,
        schedule: phases.Schedule,
        *,
        steps_done: int,
        validation_images: int,
    ):
        self._step, self._phase, self._schedule = step, phase, schedule
        self._next, self._validation_images = steps_done, validation_images
        self._timed = -1  # steps since `_since`; the next call's starts the clock where below 0
        self._since = 0.0
        self._told = False

    def __call__(self, batch: steps.Batch) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = self._step(batch)
        self._next += 1
        if not self._told:
            outputs[0].numpy()  # on a GPU a step returns before it is done
            self._note()
        return outputs

    def _note(self) -> None:
        now = time.monotonic()
        self._timed += 1
        if self._timed == 0 or (self._next - 1) % self._schedule.steps_per_epoch == 0:
            self._timed, self._since = 0, now
        elif self._timed == _TIMED_STEPS:
            logging.info(self._line(_TIMED_STEPS * self._schedule.batch_size / (now - self._since)))
            self._told = True

    def _line(self, rate: float) -> str:
        schedule = self._schedule
        steps_left = schedule.epochs * schedule.steps_per_epoch - self._next
        epochs_left = schedule.epochs - (self._next - 1) // schedule.steps_per_epoch
        validation = epochs_left * self._validation_images * _VALIDATION_COST
        left = (steps_left * schedule.batch_size + validation) / rate
        return (
            f"{self._phase.name}: {rate:.1f} images/s, peak memory {memory.text(memory.peak())} "
            f"of {memory.text(memory.total())}, LSTM kernel: {lstm.kernel_name()}, about "
            f"{progress.duration(left)} to go"
        )


def tell_of_phase2(
    config: config_lib.Config,
    network: network_lib.Network,
    strategy: tf.distribute.Strategy,
) -> None:
    """Tells before phase 1 whether phase 2 will fit into memory, by estimate.

    Nothing is told where it cannot be: on GPUs, whose memory is another, and on systems that do
    not say what is available.
    """
    available = memory.available()
    if available is None or tf.config.list_physical_devices("GPU"):
        return
    available += memory.resident()  # it is used again, or given back, once phase 1 is done
    batch_size = config.training.batch_size[phases.PHASE2.index]
    size = {
        "parameters": network.model.count_params(),
        "half": network.precision != "float32",
        "replicas": strategy.num_replicas_in_sync,
    }
    need = cost.phase2_memory(batch_size, **size)
    told = (
        f"phase 2 at --batch_size={batch_size} will take {memory.text(need)} of memory (estimate); "
        f"{memory.text(available)} are available"
    )
    if need <= available:
        logging.info(f"memory: {told}")
        return
    largest = cost.largest_phase2_batch(available, **size)
    mend = f"give --batch_size={config.training.batch_size[phases.PHASE1.index]},{largest} at most"
    logging.warning(
        f"{told}. It will not fit: {mend if largest else 'close other programs first'}."
    )
