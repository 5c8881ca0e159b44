"""A dry run of one phase: a few real steps at full size, timed, in a process of its own."""

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import phases, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline, training_samples
from cnnrnn.models import lstm
from cnnrnn.preprocessing import augmentation, mixing
from cnnrnn.system import console, gpu_memory, memory, pipelined
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import text as text_lib
from cnnrnn.training import (
    class_weights,
    cost,
    feature_cache,
    size_schedule,
    steps,
    train_state,
)

_TIMED_STEPS = 2  # after the first, in which TensorFlow compiles
_TIMED_BATCHES = 4


def _batches_ahead(batch_size: int) -> int:
    """How many batches the input pipeline may have read ahead when one is asked for.

    Two wait in it, one is being put together from the images that are decoded in parallel, and a
    distributed iterator reads about three more.
    """
    return 7 + os.cpu_count() // batch_size


def measure(phase_name: str, config: config_lib.Config) -> cost.PhaseCost:
    """Builds the network as training does and times a few steps of a phase.

    The weights stay random, since neither time nor memory depends on them. Nothing is written
    except prepared data sets.

    Args:
        phase_name: 'phase1' or 'phase2'.
        config: of the run.

    Raises:
        UsageError, RunError: what training would raise at its start.
        MemoryError: TensorFlow could not allocate memory.
    """
    phase = phases.BY_NAME[phase_name]
    strategy = devices_lib.strategy(config.run.logical_cpus)
    on_gpu = bool(devices_lib.gpus())
    available = gpu_memory.total() if on_gpu else memory.available()
    if available is not None and not on_gpu:
        available += memory.resident()  # this process's memory counts as available to it
    # The dry run of phase 1 has reported on precision and data already.
    with contextlib.nullcontext() if phase is phases.PHASE1 else console.captured():
        config = config.replace(precision=devices_lib.precision(config.training.precision))
        data = dataset_lib.load(config)
    weights = class_weights.resolve(config, data)
    schedule = phases.schedule(phase, config, len(data.train))
    parts = config.optimization.accumulation_steps[phase.index]
    devices_lib.check_batch(schedule.batch_size, strategy, parts)
    logging.info(f"{phase_name}: timing a few steps, about a minute at full size")
    network = train_state.build_network(len(data.class_names), config, strategy)
    state = train_state.create(network, phase, config, strategy, schedule)
    options = steps.Options.of(phase, config, weights)
    run = _DryRun(phase, config, data, state, strategy, options)
    try:
        parts = run.parts(schedule)
    except tf.errors.ResourceExhaustedError as error:
        kind = cost.GpuMemoryError if on_gpu else MemoryError
        raise kind(text_lib.first_line(error)) from error
    return cost.PhaseCost(
        phase=phase_name,
        devices=devices_lib.describe(config.run.logical_cpus),
        precision=network.precision,
        kernel=lstm.kernel_name(network.lstm_kernel),
        batch_size=schedule.batch_size,
        peak=gpu_memory.peak() if on_gpu else memory.peak(),
        available=available,
        on_gpu=on_gpu,
        limit=60 * config.training.max_minutes[phase.index] or math.inf,
        **parts,
    )


@dataclasses.dataclass(frozen=True)
class _DryRun:
    phase: phases.Phase
    config: config_lib.Config
    data: dataset_lib.Dataset
    state: train_state.TrainState
    strategy: tf.distribute.Strategy
    options: steps.Options

    def parts(self, schedule: phases.Schedule) -> dict[str, cost.Part | None]:
        """Times the parts of the phase: "features", "training" and "validation"."""
        config, train, validation = self.config, self.data.train, self.data.validation
        network, strategy, batch_size = self.state.network, self.strategy, schedule.batch_size
        images = schedule.steps_per_epoch * batch_size
        sizes = size_schedule.SizeSchedule.of(self.phase, config, schedule)
        samples = training_samples.TrainingSamples.of(
            config,
            train,
            train_cnn=self.phase.train_cnn,
            dropout_width=network.fused_width,
        )
        eval_size = config.data.eval_image_size or shapes.IMAGE_SIZE
        caches = not self.phase.train_cnn and config.training.feature_cache_dir is not None
        caches = caches and network.uses_cnn
        views = samples.view_count
        plain = dataclasses.replace(
            samples,
            augmentation=augmentation.Augmentation(),
            cached_views=0,
            mixing=mixing.Mixing(),
            dropout=0.0,
        )
        computed = []  # (samples, number of images) of each call that computes features
        cache_validation = caches and feature_cache.pays(schedule.epochs)
        if cache_validation:
            computed.append((plain.of_size(eval_size), len(validation)))
        train_step = steps.make_train_step(self.state, strategy, batch_size, self.options)
        seconds = 0.0  # of the phase's steps
        cached_sizes = set()
        for part in sizes.parts:
            part_images = (part.end - part.start) * batch_size
            passes = feature_cache.passes_over(part.end - part.start, batch_size, len(train))
            pays = feature_cache.pays(passes, views)
            if caches and pays and part.size not in cached_sizes:
                cached_sizes.add(part.size)
                viewed = plain if views == 1 else samples
                computed.append((viewed.of_size(part.size), views * len(train)))
            cached = part.size in cached_sizes or not network.uses_cnn
            rate = self._rate(train_step, batch_size, samples.of_size(part.size), cached=cached)
            seconds += part_images / rate
        eval_step = steps.make_eval_step(network, strategy)
        evaluated = plain.of_size(eval_size)
        cached = cache_validation or not network.uses_cnn
        eval_rate = self._rate(eval_step, batch_size, evaluated, cached=cached)
        return {
            "features": self._features(computed),
            "training": cost.Part(
                images * schedule.epochs / seconds, images, passes=schedule.epochs
            ),
            "validation": cost.Part(eval_rate, len(validation), passes=schedule.epochs),
        }

    def _features(
        self, computed: list[tuple[training_samples.TrainingSamples, int]]
    ) -> cost.Part | None:
        """The features that are computed: of which samples, and of how many; None: none."""
        if not computed:
            return None
        step = steps.make_feature_step(self.state.network, self.strategy)
        batch_size = feature_cache.batch_size(self.strategy)
        rates = {
            samples: self._rate(step, batch_size, samples, cached=False)
            for samples in dict.fromkeys(samples for samples, _ in computed)
        }
        images = sum(count for _, count in computed)
        seconds = sum(count / rates[samples] for samples, count in computed)
        return cost.Part(images / seconds, images, passes=1)

    def _rate(
        self,
        step: Callable,
        batch_size: int,
        samples: training_samples.TrainingSamples,
        *,
        cached: bool,
    ) -> float:
        """Images/s of a step or of its pipeline, whichever is slower, with or without features.

        The batches of the timed steps are ready before them, because the first step compiles. So
        the pipeline is timed by itself: on a GPU it can be the slower one.
        """
        train = self.data.train
        width = self.state.network.cnn.output.shape[-1]
        batches = input_pipeline.training(
            train,
            samples,
            batch_size=batch_size,
            start=0,
            # The cost of a step does not depend on their values.
            features=input_pipeline.ConstantFeatures(width) if cached else None,
        )
        iterator = input_pipeline.distribute(batches, self.strategy)

        ahead = _batches_ahead(batch_size)
        count = (1 + _TIMED_STEPS + ahead + _TIMED_BATCHES) * batch_size

        def next_batch() -> steps.Batch:
            indices = functools.partial(samples.order.indices_at, 0, count)
            with input_pipeline.naming_bad_images(train, indices):
                return next(iterator)

        pipelined.read(step(next_batch()))  # compiles
        start = time.monotonic()
        for _ in range(_TIMED_STEPS):
            pipelined.read(step(next_batch()))
        step_seconds = (time.monotonic() - start) / _TIMED_STEPS
        for _ in range(ahead):
            next_batch()
        start = time.monotonic()
        for _ in range(_TIMED_BATCHES):
            next_batch()
        batch_seconds = (time.monotonic() - start) / _TIMED_BATCHES
        return batch_size / max(step_seconds, batch_seconds)
