"""The training loop: one phase of a run, from its initial weights to its last epoch."""

import contextlib
import time

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, metrics, phases, shapes
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.evaluation import predictions as predictions_lib
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import checkpoints, manifest, run_folder
from cnnrnn.system import console, gpu_memory, pipelined, progress, stop_signals
from cnnrnn.system import devices as devices_lib
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import (
    class_weights,
    epoch_result,
    initial_weights,
    optimizers,
    phase_features,
    profiler,
    recorder,
    requests,
    size_schedule,
    startup_report,
    steps,
    stopping,
    train_state,
    training_batches,
    worker_weights,
)

_BATCH_LOSS_INTERVAL = 10  # steps between two points of TensorBoard's batch_loss


class PhaseTrainer:
    """Trains one phase of a run. `train` resumes where the run's last checkpoint stands.

    Args:
        phase: which phase.
        config: settings; the precision must not be 'auto' any more.
        folder: of the run, locked by the caller. Of several workers, the chief alone uses it.
        data: training and validation split.
        network: built under `strategy`; its weights are overwritten.
        strategy: what to train on.
    """

    def __init__(
        self,
        phase: phases.Phase,
        config: config_lib.Config,
        folder: run_folder.RunFolder,
        data: dataset_lib.Dataset,
        network: network_lib.Network,
        strategy: tf.distribute.Strategy,
    ):
        self._phase, self._config, self._folder = phase, config, folder
        self._data, self._network, self._strategy = data, network, strategy
        self._workers = workers_lib.Workers(strategy)
        self._class_weights = class_weights.resolve(config, data)
        self._schedule = phases.schedule(phase, config, len(data.train))
        self._sizes = size_schedule.SizeSchedule.of(phase, config, self._schedule)
        self._state = train_state.create(network, phase, config, strategy, self._schedule)
        with strategy.scope():
            self._position = checkpoints.Position(phase)
        self._checkpoints = checkpoints.Checkpoints(
            folder.checkpoints(phase),
            checkpoints.State(
                network.model,
                self._state.optimizer,
                self._position,
                self._state.trackables(),
            ),
            data.class_names,
            checkpoints.SavePolicy(config.run.checkpoint_minutes, config.run.on_save_failure),
        )
        self._recorder = recorder.Recorder(
            phase, folder, data, network, self._checkpoints, self._workers.is_chief
        )
        self._stopping = stopping.Stopping(phase, config, folder, self._position)
        self._profiler = profiler.Profiler(
            config.run.profile_steps if self._workers.is_chief else "",
            folder.events(phase, "train"),
        )
        self._requests = requests.Requests(self._workers, self._checkpoints, self._stopping)

    def train(self, *, phase2_follows: bool = True) -> bool:
        """Trains, validates and saves, epoch after epoch.

        Args:
            phase2_follows: whether phase 1 reports if phase 2 will fit into memory.

        Returns:
            Whether there was anything to train.

        Raises:
            UsageError: there are no weights to start from, or starting would lose trained ones.
            RunError: an image cannot be decoded, a loss or gradient is not finite, a file cannot be
                read or written.
            Stopped: by a signal; everything is saved.
        """
        if self._workers.is_chief:
            self._restore()
        worker_weights.share(self._workers, self._state, self._position)
        schedule, position = self._schedule, self._position
        if self._is_over():
            if self._workers.is_chief:
                logging.info(self._stopping.reason)
            return False
        startup_report.report_phase(
            self._phase, schedule, self._network, self._config, self._workers.count
        )
        gpu_memory.reset()
        if self._phase is phases.PHASE1 and phase2_follows:
            startup_report.report_phase2_memory(self._config, self._network, self._strategy)
        validated = position.epoch * schedule.steps_per_epoch + position.validated
        with self._recorder.opened(steps_done=self._steps_done, steps_validated=validated):
            self._run_epochs()
        return True

    @property
    def _steps_done(self) -> int:
        return self._position.epoch * self._schedule.steps_per_epoch + self._position.step

    def _restore(self) -> None:
        """Restores the weights and the position, in this order of precedence:

        1. this phase's own checkpoint in this run;
        2. the best weights of --init_from;
        3. phase 1: pretrained weights of the CNN, those of --rnn_weights in the RNN, random ones
           of the rest;
           phase 2: the best weights of this run's phase 1.

        Settings are recorded last, so that a mistake does not bind the run folder to them.
        """
        phase, config, folder = self._phase, self._config, self._folder
        content = class_weights.content(config, self._data, self._class_weights)
        restored = self._checkpoints.restore()
        if restored is not None:
            if phase is phases.PHASE2 and not config.training.init_from:
                initial_weights.warn_of_newer_phase1(folder)
            if not self._stopping.reason:  # else nothing is trained with these settings
                folder.record(phase, config, self._data, content)
            elif self._position.epoch >= config.training.epochs[phase.index]:
                folder.record_end(phase, self._position.epoch)
            logging.info(
                f"{phase.name}: resumes from {restored}, {self._position.epoch} epochs and "
                f"{self._position.step} steps done"
            )
            return
        initial = initial_weights.load(phase, config, folder, self._network, self._data.class_names)
        self._position.first_sample = initial.first_sample
        for note in initial_weights.other_images(phase, config, self._data):
            logging.info(f"note: {note}")
        if self._state.average is not None:
            self._state.average.reset()
        folder.record(phase, config, self._data, content)
        described = manifest.describe(
            phase,
            config,
            self._data,
            devices_lib.describe(config.run.logical_cpus, self._workers.count),
            initial.description,
            initial.xception,
        )
        folder.write_manifest(phase, described | {"first_sample": initial.first_sample})
        initial_weights.mark_start(folder, phase)

    def _is_over(self) -> bool:
        """Whether no further epoch is trained; the chief decides."""
        return bool(self._workers.of_chief(self._workers.is_chief and bool(self._stopping.reason)))

    def _run_epochs(self) -> None:
        config, schedule, network = self._config, self._schedule, self._network
        features = phase_features.PhaseFeatures(self._phase, config, network, self._strategy)
        # Not an attribute: what a phase holds is to be free again when the next one starts.
        batches = training_batches.TrainingBatches(
            self._data.train,
            training_samples_lib.TrainingSamples.of(
                config,
                self._data.train,
                train_cnn=self._phase.train_cnn,
                dropout_width=network.fused_width,
                first=self._position.first_sample,
            ),
            self._sizes,
            schedule.batch_size,
            self._strategy,
            features,
        )
        if self._steps_done == 0:
            self._recorder.start(config, batches)
        preprocessing = views_lib.Preprocessing(
            config.data.resize_method, config.data.eval_image_size or shapes.IMAGE_SIZE
        )
        batches.start_at(self._steps_done)
        epochs_left = schedule.epochs - self._steps_done / schedule.steps_per_epoch
        validation_features = features.of_validation(
            self._data.validation, preprocessing, epochs_left
        )
        self._train_step = pipelined.Pipelined(
            steps.make_train_step(
                self._state,
                self._strategy,
                schedule.batch_size,
                steps.Options.of(self._phase, config, self._class_weights),
            )
        )
        evaluator = predictions_lib.Evaluator(
            steps.make_eval_step(network, self._strategy),
            self._strategy,
            schedule.batch_size,
            preprocessing,
        )
        try:
            with stop_signals.held():
                self._stopping.measure()
                self._speed = self._speed_report(batches.runs_cnn)
                while not self._is_over():
                    result = self._train_epoch(batches)
                    worker_weights.check(self._workers, network)
                    with self._averaged_weights():
                        predictions = evaluator.predict(
                            self._data.validation,
                            label=f"{self._label} validation",
                            features=validation_features,
                        )
                        is_best = self._recorder.keep_if_best(
                            predictions.means,
                            self._position,
                            step=self._position.step % schedule.steps_per_epoch,
                        )
                    self._position.validated = self._position.step
                    self._end_epoch(result, predictions, preprocessing, is_best)
        except errors.Stopped:
            self._save()
            raise
        finally:
            self._profiler.stop()
        if self._position.epoch < schedule.epochs and self._workers.is_chief:
            logging.info(self._stopping.reason)

    def _averaged_weights(self) -> contextlib.AbstractContextManager:
        """A context in which the network has the averaged weights of --ema, if given."""
        average = self._state.average
        return contextlib.nullcontext() if average is None else average.applied()

    @property
    def _updates(self) -> int:
        return int(self._state.optimizer.iterations.numpy())

    @property
    def _label(self) -> str:
        return f"{self._phase.name} epoch {self._position.epoch + 1}/{self._schedule.epochs}"

    def _train_epoch(self, batches: training_batches.TrainingBatches) -> epoch_result.EpochResult:
        """Trains to the end of the current epoch, or of the phase's time.

        Each step is launched before the results of the previous one are read and checked. A step
        whose results have not been read is not part of the position, and `_save` reads them first.
        """
        schedule, position = self._schedule, self._position
        images = schedule.steps_per_epoch * schedule.batch_size
        waited = 0.0
        with progress.Progress(
            self._label,
            images,
            "images",
            initial=position.step * schedule.batch_size,
            later=round(self._speed.later_than_epoch(self._steps_done)),
        ) as bar:
            bar.end_after(self._stopping.seconds_left)
            while position.step + self._train_step.pending < schedule.steps_per_epoch:
                if batches.begins_a_part:  # which may compute features
                    self._save()
                    with bar.paused(), self._stopping.paused():
                        batches.begin_part()
                    self._speed = self._speed_report(batches.runs_cnn)
                    bar.at_another_rate(round(self._speed.later_than_epoch(self._steps_done)))
                self._profiler.before_step()
                asked = time.monotonic()
                batch = next(batches)
                asking = time.monotonic() - asked
                self._count(self._train_step.call(batch, *self._requests.to_sum()))
                waited += asking * self._train_step.was_idle  # a GPU was at work otherwise
                self._speed.step_launched()
                self._requests.check_stop()
                self._show(bar)
                self._stopping.measure()
                if self._requests.save:
                    self._save()
                if self._requests.out_of_time:
                    break
            self._count(self._train_step.drain())
            self._show(bar)
        return epoch_result.EpochResult(
            metrics.Means.of_sums(position.totals), bar.rate, waited / max(bar.seconds, 1e-9)
        )

    def _count(self, results: tuple[np.ndarray, ...] | None) -> None:
        """Checks the results of the next step after the position, if any, and advances by it."""
        if results is None:
            return
        sums, non_finite, *requested = results
        self._check_finite(float(sums[0]), float(non_finite))
        self._position.advance(sums.astype(np.float64))
        self._requests.receive(*requested)
        if self._steps_done % _BATCH_LOSS_INTERVAL == 0:
            self._recorder.batch_loss(float(sums[0]) / float(sums[3]), self._steps_done)

    def _show(self, bar: progress.Progress) -> None:
        position = self._position
        if position.step:
            means = metrics.Means.of_sums(position.totals)
            bar.update(position.step * self._schedule.batch_size, str(means))

    def _check_finite(self, loss: float, non_finite: float) -> None:
        """Raises RunError if a step must not be kept; see `steps.make_train_step`."""
        if np.isfinite(loss) and non_finite == 0:
            return
        what = "a gradient" if np.isfinite(loss) else "the loss"
        if np.isfinite(loss) and self._state.loss_scale is not None:
            what += ", at the lowest loss scale of float16,"
        raise errors.RunError(
            f"{what} is not finite at step {self._position.step + 1} of epoch "
            f"{self._position.epoch + 1} of {self._phase.name}. Nothing of that step was saved. A "
            "lower --learning_rate, with another --run, usually fixes it."
        )

    def _end_epoch(
        self,
        result: epoch_result.EpochResult,
        predictions: predictions_lib.Predictions,
        preprocessing: views_lib.Preprocessing,
        is_best: bool,
    ) -> None:
        """Writes summaries and saves a checkpoint.

        The epoch may have been cut off by --max_minutes; it is then continued by the next process.
        """
        schedule, position = self._schedule, self._position
        label = self._label
        self._stopping.measure()
        rates = {
            # Of the last update: with float16 some steps are skipped.
            "learning_rate": optimizers.rate_at(schedule, max(self._updates - 1, 0)),
            "images_per_second": result.images_per_second,
            "waiting_for_input": result.waiting,
            # Since the start of the phase, with validation.
            "minutes": position.seconds / 60,
            "cpu_minutes": position.cpu_seconds / 60,
        }
        self._recorder.epoch(result.means, predictions, preprocessing, rates, self._steps_done)
        if position.step == schedule.steps_per_epoch:
            position.end_epoch()
        else:
            label += f", {position.step:,} of {schedule.steps_per_epoch:,} steps"
        self._save()
        logging.info(
            f"{label}: train {result}\n"
            f"{'':>{len(self._phase.name)}} validation {predictions.means}"
            f"{console.styled('  best so far', 'good') if is_best else ''}"
        )

    def _save(self) -> None:
        """Saves a checkpoint of all launched steps, after the summaries up to it.

        Raises:
            RunError: the results of the last step are not finite, or see `Checkpoints.save`.
        """
        self._count(self._train_step.drain())
        self._recorder.save()
        self._requests.saved()

    def _speed_report(self, runs_cnn: bool) -> startup_report.SpeedReport:
        return startup_report.SpeedReport(
            self._phase,
            self._schedule,
            self._sizes if runs_cnn else self._sizes.constant(),
            steps_done=self._steps_done,
            validation_images=len(self._data.validation),
            limit=self._stopping.seconds_left,
        )
