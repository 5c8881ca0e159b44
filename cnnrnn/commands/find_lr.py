"""`find-lr`: a learning rate for a phase, by a few steps at growing rates on the real images.

    RUNS_DIR/RUN.find-lr/PHASE.png     loss against learning rate, and the suggestion
    RUNS_DIR/RUN.find-lr/PHASE.csv     the same as a table

The run itself is read, for the weights that the phase starts from, and not changed.
"""

import csv
import io
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import training_samples
from cnnrnn.evaluation import charts
from cnnrnn.models import lstm
from cnnrnn.runs import run_folder
from cnnrnn.settings import image_sizes
from cnnrnn.system import atomic_files, progress
from cnnrnn.system import devices as devices_lib
from cnnrnn.training import (
    class_weights,
    initial_weights,
    phase_features,
    rate_search,
    size_schedule,
    steps,
    train_state,
    training_batches,
)

_INTERVAL = 5  # steps between two lines of the table


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Searches a rate for --phase, prints a suggestion and writes the plot and its table.

    Args:
        arguments: none.
        config: of the planned run; schedules and averages of the weights have no effect, and of
            several image sizes the first is used.

    Raises:
        UsageError: phase 2 has no weights to start from, or a setting is wrong.
        RunError: an image cannot be decoded, or a file cannot be read or written.
    """
    phase = phases.BY_NAME[config.rate_search.phase]
    folder = run_folder.RunFolder(config.run_dir)
    initial_weights.require_trained(phase, config, folder)
    target = folder.root.with_name(f"{folder.root.name}.find-lr") / phase.name
    strategy = devices_lib.strategy(config.run.logical_cpus)
    planned = config
    config = config.replace(
        precision=devices_lib.precision(config.training.precision),
        schedule=("constant", "constant"),
        warmup_epochs=(0.0, 0.0),
        ema=0.0,
    )
    lstm.choose(config.training.lstm_kernel, config.training.precision)
    data = dataset_lib.load(config)
    schedule = phases.schedule(phase, config, len(data.train))
    parts = config.optimization.accumulation_steps[phase.index]
    devices_lib.check_batch(schedule.batch_size, strategy, parts)
    options = steps.Options.of(phase, config, class_weights.resolve(config, data))
    try:
        atomic_files.check_writable(target.parent)
    except OSError as error:
        raise _write_error(target, error) from error
    logging.info("network: building it, about ten seconds")
    network = train_state.build_network(len(data.class_names), config, strategy)
    initial = initial_weights.load_for_trial(phase, config, folder, network, data.class_names)
    state = train_state.create(network, phase, config, strategy, schedule)

    def set_rate(rate: float) -> None:
        state.optimizer.learning_rate = rate

    points = _shown(
        rate_search.search(
            steps.make_train_step(state, strategy, schedule.batch_size, options),
            set_rate,
            _batches(phase, config, data, state, strategy, initial.first_sample),
        ),
        phase,
    )
    _write(target, phase, points)
    _report(target, phase, planned, points)


def _batches(
    phase: phases.Phase,
    config: config_lib.Config,
    data: dataset_lib.Dataset,
    state: train_state.TrainState,
    strategy: tf.distribute.Strategy,
    first_sample: int,
) -> training_batches.TrainingBatches:
    """The first batches of a phase, in its first image size.

    Features are computed only if the steps pass through the images at least once.
    """
    first = image_sizes.parse(config.training.cnn_image_size)[phase.index][0]
    batches = training_batches.TrainingBatches(
        data.train,
        training_samples.TrainingSamples.of(
            config,
            data.train,
            train_cnn=phase.train_cnn,
            dropout_width=state.network.fused_width,
            first=first_sample,
        ),
        size_schedule.SizeSchedule((image_sizes.SizeShare(first.size, 1.0),), rate_search.STEPS),
        config.training.batch_size[phase.index],
        strategy,
        phase_features.PhaseFeatures(phase, config, state.network, strategy),
    )
    batches.start_at(0)
    return batches


def _shown(found, phase: phases.Phase) -> list[rate_search.Point]:
    """Collects the points, and prints some of them as a table."""
    points = []
    logging.info(f"\n{'step':>6}{'learning rate':>16}{'loss':>10}{'smoothed':>10}")
    with progress.Progress(f"find-lr {phase.name}", rate_search.STEPS, "steps") as bar:
        for point in found:
            points.append(point)
            if len(points) % _INTERVAL == 0 or len(points) == 1:
                logging.info(
                    f"{len(points):>6}{point.rate:>16.1e}{point.loss:>10.4f}{point.smoothed:>10.4f}"
                )
            bar.update(len(points))
    if len(points) < rate_search.STEPS:
        logging.info(f"stopped after {len(points)} steps: the loss has diverged")
    return points


def _write(target: pathlib.Path, phase: phases.Phase, points: list[rate_search.Point]) -> None:
    text = io.StringIO()
    lines = [("step", "learning_rate", "loss", "smoothed_loss")]
    lines += [(n, f"{p.rate:.6e}", f"{p.loss:.6f}", f"{p.smoothed:.6f}")
              for n, p in enumerate(points, 1)]  # fmt: skip
    csv.writer(text, lineterminator="\n").writerows(lines)
    chart = charts.rate_chart(
        [point.rate for point in points],
        [point.loss for point in points],
        [point.smoothed for point in points],
        rate_search.suggestion(points),
        f"Learning rate range test of {phase.name}",
    )
    try:
        atomic_files.write_text(target.with_suffix(".csv"), text.getvalue())
        with atomic_files.replacing(target.with_suffix(".png")) as temporary:
            temporary.write_bytes(chart)
    except OSError as error:
        raise _write_error(target, error) from error


def _write_error(target: pathlib.Path, error: OSError) -> errors.RunError:
    return errors.RunError(
        f"cannot write {target}.csv ({error.strerror}): give another --runs_dir, or fix its "
        "permissions."
    )


def _report(
    target: pathlib.Path,
    phase: phases.Phase,
    config: config_lib.Config,
    points: list[rate_search.Point],
) -> None:
    rate = rate_search.suggestion(points)
    if rate is None:
        text = "none: the loss did not fall at any rate; see the plot"
    else:
        rates = list(config.optimization.learning_rate)
        rates[phase.index] = float(f"{rate:.1e}")
        text = f"--learning_rate={rates[0]:g},{rates[1]:g}"
    logging.info(
        f"\n  suggestion   {text}\n  plot         {target}.png\n  table        {target}.csv"
    )
