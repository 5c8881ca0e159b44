"""A trial of one phase: a few real steps at full size, in a process that does nothing else."""

import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.models import lstm
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import memory
from cnnrnn.system import text as text_lib
from cnnrnn.training import cost, feature_cache, steps
from cnnrnn.training import loss_scale as loss_scale_lib

_TIMED_STEPS = 2  # after the first, in which TensorFlow compiles


class _AnyFeatures:
    """Stands in for features of the cache: what a step costs does not depend on their values."""

    def __init__(self, width: int):
        self._width = width

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.fill((rows.shape[0], self._width), 0.5)


def measure(phase_name: str, config: config_lib.Config) -> cost.PhaseCost:
    """Builds the network as training does and takes a few steps of a phase.

    The network keeps its random weights, since neither time nor memory depends on them. Nothing
    is written but what preparing the data set leaves.

    Raises:
        UsageError, RunError: as training would at its start.
        MemoryError: TensorFlow got no memory.
    """
    available = memory.available()
    if available is not None:
        available += memory.resident()  # what this process has taken already is its own
    phase = phases.BY_NAME[phase_name]
    strategy = devices_lib.strategy(config.run.logical_cpus)
    precision = devices_lib.precision(config.training.precision)
    data = dataset_lib.load(config)
    schedule = phases.schedule(phase, config, len(data.train))
    devices_lib.check_batch(schedule.batch_size, strategy)
    print(f"{phase_name}: trying it, about a minute at full size", flush=True)
    with strategy.scope():
        network = network_lib.build(
            len(data.class_names),
            seed=config.run.seed,
            synchronized_batchnorm=strategy.num_replicas_in_sync > 1,
            precision=precision,
        )
    phases.set_trainable(network, phase, config)
    with strategy.scope():
        optimizer = phase.optimizer(learning_rate=schedule.learning_rate)
        optimizer.build(network.model.trainable_variables)
        scale = loss_scale_lib.LossScale() if precision == "float16" else None
    train_step = steps.make_train_step(
        network, optimizer, strategy, schedule.batch_size, loss_scale=scale
    )
    try:
        rates = _rates(phase, schedule, config, data, network, train_step, strategy)
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(text_lib.first_line(error)) from error
    return cost.PhaseCost(
        phase=phase_name,
        devices=devices_lib.describe(config.run.logical_cpus),
        replicas=strategy.num_replicas_in_sync,
        precision=network.precision,
        kernel=lstm.kernel_name(),
        parameters=network.model.count_params(),
        batch_size=schedule.batch_size,
        peak=memory.peak(),
        available=available,
        **rates,
    )


def _rates(
    phase: phases.Phase,
    schedule: phases.Schedule,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    network: network_lib.Network,
    train_step: Callable,
    strategy: tf.distribute.Strategy,
) -> dict[str, cost.Part | None]:
    """Times the parts of a phase: "features", "training" and "validation"."""
    samples = schedule.steps_per_epoch * schedule.batch_size
    extracted = []  # the splits whose features would be computed, once
    if not phase.train_cnn and config.training.feature_cache_dir is not None:
        if feature_cache.pays(schedule.epochs * samples / len(data.train)):
            extracted.append(data.train)
        if feature_cache.pays(schedule.epochs):
            extracted.append(data.validation)

    def rate(step: Callable, batch_size: int, cached: bool) -> float:
        features = _AnyFeatures(network.cnn.output.shape[-1]) if cached else None
        batches = input_pipeline.training(
            data.train,
            batch_size=batch_size,
            start=0,
            seed=config.run.seed,
            preprocessing=views_lib.Preprocessing(config.data.resize_method),
            features=features,
        )
        distributed = input_pipeline.distribute(batches, strategy)
        try:
            return _images_per_second(step, distributed, batch_size)
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            rows = input_pipeline.indices_at(
                0, (1 + _TIMED_STEPS) * batch_size, len(data.train), config.run.seed
            )
            raise input_pipeline.decoding_error(data.train, rows, error) from error

    features_part = None
    if extracted:
        features_part = cost.Part(
            rate(
                steps.make_feature_step(network, strategy),
                feature_cache.batch_size(strategy),
                cached=False,
            ),
            images=sum(len(split) for split in extracted),
            times=1,
        )
    return {
        "features": features_part,
        "training": cost.Part(
            rate(train_step, schedule.batch_size, cached=data.train in extracted),
            images=samples,
            times=schedule.epochs,
        ),
        "validation": cost.Part(
            rate(
                steps.make_eval_step(network, strategy),
                schedule.batch_size,
                cached=data.validation in extracted,
            ),
            images=len(data.validation),
            times=schedule.epochs,
        ),
    }


def _images_per_second(step: Callable, batches: Iterator[steps.Batch], batch_size: int) -> float:
    """The rate of a step and its pipeline, once the step is compiled."""
    _finish(step(next(batches)))
    start = time.monotonic()
    for _ in range(_TIMED_STEPS):
        _finish(step(next(batches)))
    return _TIMED_STEPS * batch_size / (time.monotonic() - start)


def _finish(outputs) -> None:
    """Waits for a step: on a GPU it returns before it is done."""
    for output in tf.nest.flatten(outputs):
        output.numpy()
