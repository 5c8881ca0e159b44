"""Training: one phase or the whole recipe."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, checkpoints, run_folder
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import stop_signals
from cnnrnn.training import epoch as epoch_lib
from cnnrnn.training import feature_cache, initial_weights, startup_report, steps, tensorboard
from cnnrnn.training import loss_scale as loss_scale_lib


@dataclasses.dataclass(frozen=True)
class Setup:
    """What both phases of a command share."""

    config: config_lib.Config
    folder: run_folder.RunFolder
    strategy: tf.distribute.Strategy
    data: dataset_lib.Dataset
    network: network_lib.Network
    goes_on: bool  # the command itself does what comes after a phase


def train_phase(setup: Setup, phase: phases.Phase) -> None:
    """Trains one phase from where it stands to its last epoch."""
    config, strategy, network = setup.config, setup.strategy, setup.network
    schedule = phases.schedule(phase, config, len(setup.data.train))
    phases.set_trainable(network, phase, config)
    with strategy.scope():
        optimizer = phase.optimizer(learning_rate=schedule.learning_rate)
        optimizer.build(network.model.trainable_variables)
        position = checkpoints.Position(phase)
        scale = loss_scale_lib.LossScale() if config.training.precision == "float16" else None
    saver = checkpoints.Checkpoints(
        setup.folder.checkpoints(phase),
        checkpoints.State(
            network.model, optimizer, position, extra=scale.trackables() if scale else {}
        ),
        setup.data.class_names,
        checkpoints.SavePolicy(config.run.checkpoint_minutes, config.run.on_save_failure),
    )
    initial_weights.restore(
        phase,
        config,
        setup.folder,
        setup.data,
        network,
        saver,
        position,
        devices_lib.describe(config.run.logical_cpus),
    )
    if position.epoch >= schedule.epochs:
        print(
            f"{phase.name}: all {schedule.epochs} epochs are done in {setup.folder.root}. For "
            "more give --epochs, to start afresh --run=NAME."
        )
        return
    print(
        f"{phase.name}: {schedule.epochs} epochs of {schedule.steps_per_epoch:,} steps of "
        f"{schedule.batch_size}, {phase.optimizer.__name__} at {schedule.learning_rate:g}, "
        f"{sum(math.prod(v.shape) for v in network.model.trainable_variables):,} parameters train"
    )
    if phase is phases.PHASE1:
        startup_report.tell_of_phase2(config, network, strategy)
    train_step = steps.make_train_step(
        network, optimizer, strategy, schedule.batch_size, loss_scale=scale
    )
    train_step = startup_report.TellingStep(
        train_step,
        phase,
        schedule,
        steps_done=position.epoch * schedule.steps_per_epoch + position.step,
        validation_images=len(setup.data.validation),
    )
    _run_epochs(setup, phase, schedule, train_step, position, saver)
    _say_what_next(setup, phase)


def _run_epochs(
    setup: Setup,
    phase: phases.Phase,
    schedule: phases.Schedule,
    train_step: epoch_lib.TrainStep,
    position: checkpoints.Position,
    saver: checkpoints.Checkpoints,
) -> None:
    """Trains, validates, keeps the best, saves; epoch after epoch."""
    config, data, strategy = setup.config, setup.data, setup.strategy
    network = setup.network
    eval_step = steps.make_eval_step(network, strategy)
    first_epoch, step = position.epoch, position.step
    steps_done = first_epoch * schedule.steps_per_epoch + step
    writer = tensorboard.Summaries(
        setup.folder,
        phase,
        steps_done=steps_done,
        steps_validated=first_epoch * schedule.steps_per_epoch,
    )
    features, validation_features = _features(setup, phase, schedule, steps_done)
    if steps_done == 0:
        writer.start(config, network, _sample(setup))
    batches = input_pipeline.distribute(
        input_pipeline.training(
            data.train,
            batch_size=schedule.batch_size,
            start=steps_done * schedule.batch_size,
            seed=config.run.seed,
            preprocessing=views_lib.Preprocessing(config.data.resize_method),
            features=features,
        ),
        strategy,
    )
    try:
        with stop_signals.held():
            for epoch in range(first_epoch, schedule.epochs):
                outcome = epoch_lib.train(
                    data.train,
                    config,
                    phase,
                    schedule,
                    position,
                    saver,
                    batches,
                    train_step,
                    writer,
                )
                predictions = predictions_lib.predict(
                    data.validation,
                    eval_step,
                    strategy,
                    batch_size=schedule.batch_size,
                    preprocessing=views_lib.Preprocessing(config.data.resize_method),
                    label=f"{phase.name} epoch {epoch + 1}/{schedule.epochs} validation",
                    features=validation_features,
                )
                _end_epoch(setup, phase, schedule, position, saver, writer, outcome, predictions)
    except errors.Stopped:
        writer.flush()
        saver.save()
        raise
    finally:
        writer.close()


def _end_epoch(
    setup: Setup,
    phase: phases.Phase,
    schedule: phases.Schedule,
    position: checkpoints.Position,
    saver: checkpoints.Checkpoints,
    writer: tensorboard.Summaries,
    outcome: epoch_lib.Outcome,
    predictions: predictions_lib.Predictions,
) -> None:
    """Keeps the weights if they are the best so far, writes the curves, moves on, saves."""
    epoch, validation = position.epoch + 1, predictions.means
    if not np.isfinite(validation.loss):
        raise errors.RunError(
            f"the validation loss after epoch {epoch} of {phase.name} is not finite. Nothing of "
            "that epoch's end was saved. A lower --learning_rate, with another --run, usually "
            "mends it."
        )
    value = getattr(validation, phase.best_by)
    better = phase.is_better(value, position.best)
    if better and saver.attempt(
        lambda: best_weights.save(
            setup.folder.best,
            phase,
            setup.network.model,
            setup.data.class_names,
            epoch,
            validation,
        )
    ):
        position.best = value
    steps_done = epoch * schedule.steps_per_epoch
    writer.epoch(
        outcome.means,
        validation,
        learning_rate=schedule.learning_rate,
        images_per_second=outcome.images_per_second,
        waiting=outcome.waiting,
        step=steps_done,
    )
    writer.predictions(
        setup.data.validation,
        predictions,
        setup.data.class_names,
        views_lib.Preprocessing(setup.config.data.resize_method),
        steps_done,
    )
    position.end_epoch()
    writer.flush()
    saver.save()
    print(
        f"{phase.name} epoch {epoch}/{schedule.epochs}: train {outcome}\n"
        f"{'':>{len(phase.name)}} validation {validation}{'  best so far' if better else ''}"
    )


def _features(
    setup: Setup, phase: phases.Phase, schedule: phases.Schedule, steps_done: int
) -> tuple[feature_cache.Features | None, feature_cache.Features | None]:
    """The frozen CNN's features of the training and the validation images, where they pay."""
    directory = setup.config.training.feature_cache_dir
    if phase.train_cnn or directory is None:
        return None, None
    cache = feature_cache.FeatureCache(
        directory,
        setup.network,
        setup.strategy,
        views_lib.Preprocessing(setup.config.data.resize_method),
    )
    train, validation = setup.data.train, setup.data.validation
    steps_left = schedule.epochs * schedule.steps_per_epoch - steps_done
    return (
        cache.features(train, "train", steps_left * schedule.batch_size / len(train)),
        cache.features(validation, "validation", steps_left / schedule.steps_per_epoch),
    )


def _sample(setup: Setup) -> dict[str, np.ndarray]:
    """A few training examples as the network gets them, for TensorBoard."""
    count = min(4, len(setup.data.train))
    batches = input_pipeline.training(
        setup.data.train,
        batch_size=count,
        start=0,
        seed=setup.config.run.seed,
        preprocessing=views_lib.Preprocessing(setup.config.data.resize_method),
    )
    try:
        return next(batches.as_numpy_iterator())
    except tf.errors.OpError as error:
        rows = input_pipeline.indices_at(0, count, len(setup.data.train), setup.config.run.seed)
        raise input_pipeline.decoding_error(setup.data.train, rows, error) from error


def _say_what_next(setup: Setup, phase: phases.Phase) -> None:
    best = best_weights.find(setup.folder.best, phase)
    print(f"\n{phase.name} is done. Best epoch {best.epoch}: validation {best.validation}")
    if setup.goes_on:
        return
    following = "phase2" if phase is phases.PHASE1 else "evaluate"
    without = " but without --init_from" if setup.config.training.init_from else ""
    runs_dir = setup.config.run.runs_dir
    logdir = "" if runs_dir == "runs" else f" --logdir={runs_dir}"
    print(
        f"  results   {setup.folder.root}\n"
        f"  next      ./run.sh {following}, with the same flags{without}\n"
        f"  look      ./run.sh tensorboard{logdir}\n"
    )
