"""Start-up messages of a phase: what is trained, whether phase 2 will fit, speed, time left."""

import math
import time

import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.models import network as network_lib
from cnnrnn.settings import finetuning, image_sizes
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import gpu_memory, memory, progress, scheduler
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import cost, optimizers, size_schedule

_TIMED_STEPS = 3  # or all but the first one of a shorter epoch
_MIN_SHARE = 16  # images per GPU and step, below which a warning is given


def report_phase(
    phase: phases.Phase,
    schedule: phases.Schedule,
    network: network_lib.Network,
    config: config_lib.Config,
    workers: int = 1,
) -> None:
    """Reports the numbers of a phase and how many parameters it trains; warns of small shares."""
    trained = sum(math.prod(v.shape) for v in network.model.trainable_variables)
    logging.info(
        f"{phase.name}: {schedule.epochs} epochs of {schedule.steps_per_epoch:,} steps of "
        f"{schedule.batch_size}, {optimizers.describe(phase, schedule, config)}, "
        f"{trained:,} {cost.PHASE_STARTS}"
    )
    gpus = len(devices_lib.gpus()) * workers
    warning = small_share(phase.index, config.training.batch_size, gpus)
    if warning:
        logging.warning(warning)
    warmup_epochs = config.optimization.warmup_epochs[phase.index]
    if warmup_epochs and not schedule.warmup_steps:
        logging.warning(
            f"--warmup_epochs={warmup_epochs:g} is less than one of the {schedule.steps_per_epoch} "
            f"steps per epoch of {phase.name}, so there is no warm-up"
        )
    if schedule.warmup_steps >= schedule.total_steps:
        logging.warning(
            f"--warmup_epochs={warmup_epochs:g} takes all of {phase.name} (--epochs="
            f"{schedule.epochs}): its learning rate does not reach {schedule.learning_rate:g}"
        )
    views = config.training.cached_views
    if (
        views
        and config.training.feature_cache == "off"
        and not phase.train_cnn
        and network.uses_cnn
    ):
        logging.warning(
            f"--cached_views={views} limits each image to {views} augmented views, but with "
            "--feature_cache=off the CNN computes them in every step: leave out one of the two"
        )
    if phase.train_cnn and config.finetuning.phase2_batchnorm == "frozen":
        momentum = config.finetuning.batchnorm_momentum
        if momentum != finetuning.FinetuningSettings().batchnorm_momentum:
            logging.warning(
                f"--batchnorm_momentum={momentum} has no effect with --phase2_batchnorm=frozen"
            )


def small_share(phase: int, batch_sizes: tuple[int, int], gpus: int) -> str:
    """A warning if each of several GPUs gets few images per step of a phase; else ''.

    Args:
        phase: 0 or 1.
        batch_sizes: of both phases, over all GPUs.
        gpus: how many train.
    """
    share = batch_sizes[phase] // max(gpus, 1)
    if gpus < 2 or share >= _MIN_SHARE:
        return ""
    enough = ",".join(
        str(max(cost.shared_evenly(size, gpus), _MIN_SHARE * gpus)) for size in batch_sizes
    )
    return (
        f"a batch of {batch_sizes[phase]} gives each of {gpus} GPUs {share} images, too few to use "
        f"a GPU fully. --batch_size={enough} gives each at least {_MIN_SHARE}; you then "
        "usually need a higher --learning_rate, too."
    )


class SpeedReport:
    """Times the first steps of a phase and reports its speed once.

    The first step is not timed, since TensorFlow compiles in it; nor is the pause between two
    epochs.

    Args:
        phase: for the message.
        schedule: its numbers.
        sizes: image sizes of the CNN over its steps; constant where it is not run.
        steps_done: steps of the phase done by earlier processes.
        validation_images: images evaluated after each epoch.
        limit: seconds after which the phase is ended, finished or not.
    """

    def __init__(
        self,
        phase: phases.Phase,
        schedule: phases.Schedule,
        sizes: size_schedule.SizeSchedule,
        *,
        steps_done: int,
        validation_images: int,
        limit: float = math.inf,
    ):
        self._phase, self._schedule, self._sizes = phase, schedule, sizes
        self._steps_done, self._validation_images = steps_done, validation_images
        self._end = time.monotonic() + limit
        self._to_time = min(_TIMED_STEPS, max(schedule.steps_per_epoch - 1, 1))
        self._timed = -1  # steps since `_since`; -1: the clock has not been started
        self._since = 0.0
        self._gpu_memory = gpu_memory.total()  # asks another program: before the first step

    def step_launched(self) -> None:
        """Called once a step is launched and the results of the previous one have been read.

        On a CPU a step is done by then; on a GPU the previous one is. Either way the time between
        two calls is that of a step, also for the last one of an epoch.
        """
        if self._timed == self._to_time:
            return
        self._steps_done += 1
        now = time.monotonic()
        self._timed += 1
        if self._timed == 0 or (self._steps_done - 1) % self._schedule.steps_per_epoch == 0:
            self._timed, self._since = 0, now
        elif self._timed == self._to_time:
            seconds = now - self._since
            logging.info(self._line(self._to_time * self._schedule.batch_size / seconds))

    def images_left(self, start: int, now: int) -> float:
        """The images of the phase after its first `start` steps, of training and validation.

        Args:
            start: at least 1.
            now: step whose training images are the unit.
        """
        schedule = self._schedule
        training = self._sizes.cost(start, schedule.total_steps, now) * schedule.batch_size
        validations = schedule.epochs - (start - 1) // schedule.steps_per_epoch
        images = validations * self._validation_images
        return training + images * self._sizes.validation_cost(now)

    def later_than_epoch(self, now: int) -> float:
        """The images that follow those of the epoch which step `now` is in.

        They include what the rest of the epoch costs beyond its number of images, because their
        size grows; less than 0, because it falls.
        """
        schedule = self._schedule
        end = (now // schedule.steps_per_epoch + 1) * schedule.steps_per_epoch
        beyond = self._sizes.cost(now, end, now) - (end - now)
        return self.images_left(end, now) + beyond * schedule.batch_size

    def _line(self, rate: float) -> str:
        left = self.images_left(self._steps_done, self._steps_done - 1) / rate
        left = min(left, max(self._end - time.monotonic(), 0.0))
        return (
            f"{self._phase.name}: {rate:.1f} images/s, {self._peak_memory()}, "
            f"about {progress.duration(left)} left"
        )

    def _peak_memory(self) -> str:
        on_gpus, total = gpu_memory.peak(), self._gpu_memory
        if on_gpus is None:
            return f"peak memory {memory.text(memory.peak())} of {memory.text(memory.total())}"
        of_total = f" of {memory.text(total)}" if total else ""
        return f"peak GPU memory {memory.text(on_gpus)}{of_total}"


def report_phase2_memory(
    config: config_lib.Config, network: network_lib.Network, strategy: tf.distribute.Strategy
) -> None:
    """Reports before phase 1 whether phase 2 is estimated to fit into memory.

    Reports nothing on GPUs, whose memory the estimate does not cover, and on systems that do not
    tell how much memory is available.
    """
    available = memory.available()
    if available is None or devices_lib.gpus():
        return
    batch_size = config.training.batch_size[phases.PHASE2.index]
    workers = workers_lib.Workers(strategy).count
    settings = config.optimization
    parts = settings.accumulation_steps[phases.PHASE2.index]
    sizes = image_sizes.parse(config.training.cnn_image_size)[phases.PHASE2.index]
    size = {
        "parameters": network.model.count_params(),
        "half": network.precision != "float32",
        "replicas": strategy.num_replicas_in_sync // workers,
        "more_arrays": (settings.ema > 0) + (parts > 1),
        "image_size": max(each.size for each in sizes) if network.uses_cnn else 0,
    }
    here = scheduler.workers_on_this_host() if workers > 1 else 1
    available += here * memory.resident()  # what phase 1 uses is free again for phase 2
    need = here * cost.phase2_memory(batch_size // workers // parts, **size)
    estimate = (
        f"phase 2 at --batch_size={batch_size} will take {memory.text(need)} of memory (estimate)"
        f"{' on this machine' if workers > 1 else ''}; {memory.text(available)} are available"
    )
    if need <= available:
        logging.info(f"memory: {estimate}")
        return
    largest = cost.largest_phase2_batch(available / here, **size) * parts * workers
    phase1_batch = config.training.batch_size[phases.PHASE1.index]
    fix = f"use --batch_size={phase1_batch},{largest} or less, or more --accumulation_steps"
    logging.warning(
        f"{estimate}. It will not fit: {fix if largest else 'close other programs first'}."
    )
