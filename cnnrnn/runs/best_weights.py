"""Best weights of a phase: a Keras weights file, and a JSON record that names it.

The record is written last, so that it always names a complete file.
"""

import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import keras

from cnnrnn import errors, metrics, phases
from cnnrnn.system import atomic_files, checksummed
from cnnrnn.system import text as text_lib

_STEP = "-step"  # in the name of weights within an epoch


@dataclasses.dataclass(frozen=True)
class Best:
    """The record of best weights.

    Attributes:
        weights: the file.
        sha256: its checksum.
        class_names: the classes of the outputs, in order.
        phase: name of the phase that trained them.
        epoch: from 1.
        validation: their figures on the validation split.
    """

    weights: pathlib.Path
    sha256: str
    class_names: tuple[str, ...]
    phase: str
    epoch: int
    validation: metrics.Means

    @property
    def is_within_epoch(self) -> bool:
        """Whether they are of an epoch that --max_minutes had cut off."""
        return _STEP in self.weights.name


def save(
    directory: pathlib.Path,
    phase: phases.Phase,
    model: keras.Model,
    class_names: tuple[str, ...],
    epoch: int,
    validation: metrics.Means,
    *,
    step: int = 0,
) -> None:
    """Replaces a phase's best weights.

    Args:
        directory: of the best weights of a run.
        phase: that trained them.
        model: has the weights.
        class_names: the classes of its outputs, in order.
        epoch: from 1.
        validation: their figures.
        step: finished steps of the epoch, 0 if it is complete. The complete epoch has a file of its
            own, because a killed process must not leave a file that its record does not describe.

    Raises:
        RunError: they cannot be written; the previous ones stay.
    """
    within = f"{_STEP}{step:06d}" if step else ""
    weights = directory / f"{phase.name}-epoch{epoch:04d}{within}.weights.h5"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        size = math.ceil(4.1 * model.count_params())
        atomic_files.check_free_space(directory, size, "saving", atomic_files.FREE_SPACE)
        with atomic_files.replacing(weights) as temporary:
            # A failed write within HDF5 leaves objects that can crash the process later.
            atomic_files.check_writable_size(temporary, size)
            model.save_weights(temporary)
            digest = checksummed.file_digest(temporary)
        record = {
            "weights": weights.name,
            "sha256": digest,
            "class_names": list(class_names),
            "phase": phase.name,
            "epoch": epoch,
            "validation": validation.to_json(),
        }
        checksummed.write_json(directory / f"{phase.name}.json", record)
    except OSError as error:
        raise atomic_files.write_error(directory, error) from error
    # Previous weights, and incomplete ones of a killed process.
    for prefix in ("", f"{atomic_files.TEMPORARY}*-"):
        for old in directory.glob(f"{prefix}{phase.name}-epoch*.weights.h5"):
            if old != weights:
                with contextlib.suppress(OSError):  # the next save removes it
                    old.unlink()


def find(directory: pathlib.Path, phase: phases.Phase) -> Best | None:
    """The record of a phase's best weights in a folder; None if it has none.

    Raises:
        RunError: it is damaged.
    """
    path = directory / f"{phase.name}.json"
    if not path.exists():
        return None
    try:
        record = checksummed.read_json(path)
        record["weights"] = directory / record["weights"]
        record["class_names"] = tuple(record["class_names"])
        return Best(**record | {"validation": metrics.Means(**record["validation"])})
    except (ValueError, KeyError, TypeError) as error:
        raise errors.RunError(
            f"{path} is damaged ({error}): restore it from a copy, or train the phase again, in "
            "another --run."
        ) from error


def latest(directory: pathlib.Path) -> Best:
    """The best weights of the last trained phase.

    Raises:
        UsageError: no phase has been trained.
        RunError: see `find`.
    """
    for phase in reversed(phases.BY_NAME.values()):
        best = find(directory, phase)
        if best is not None:
            return best
    raise errors.UsageError(
        f"there are no trained weights in {directory}: run phase1 first, or name a trained run by "
        "--model (predict, explain, export), --run and --runs_dir (evaluate), or --init_from and "
        "--rnn_weights (training)."
    )


def describe(best: Best, manifest: dict[str, Any]) -> str:
    """What the weights are, e.g. 'best weights of phase2 (epoch 4)'.

    Args:
        best: the weights.
        manifest: of their run.
    """
    average = manifest.get(best.phase, {}).get("average")
    if average:
        return f"average of the weights of both phases (alpha {average['alpha']:g})"
    return f"best weights of {best.phase} (epoch {best.epoch})"


def load(best: Best, model: keras.Model, class_names: tuple[str, ...]) -> None:
    """Loads best weights into a model.

    Raises:
        UsageError: they were trained on other classes than `class_names`.
        RunError: see `load_part`.
    """
    if best.class_names != class_names:
        before, now = text_lib.first_difference(best.class_names, class_names)
        raise errors.UsageError(
            f"{best.weights} has {len(best.class_names)} classes and the data set has "
            f"{len(class_names)}; the first that differ are {before!r} and {now!r}. Give the data "
            "set that the run was trained on, or a run with these classes."
        )
    load_part(best, model)


def load_part(best: Best, part: keras.Model) -> None:
    """Loads those of the best weights that belong to a part of the network, such as its RNN.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    try:
        digest = checksummed.file_digest(best.weights)
    except OSError as error:
        raise errors.RunError(
            f"{best.weights} cannot be read ({error.strerror}). If the run is being trained and "
            "has just found better weights, give the same command again. Otherwise restore the "
            "file from a copy, or train the phase again, in another --run."
        ) from error
    if digest != best.sha256:
        raise errors.RunError(
            f"{best.weights} is damaged: its content has changed since it was written. Restore it "
            "from a copy, or train the phase again, in another --run."
        )
    try:
        part.load_weights(best.weights)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise errors.RunError(
            f"{best.weights} does not fit this network: {text_lib.first_line(error)}"
        ) from error
