"""The best weights of a phase: an HDF5 file that Keras loads, and a JSON file that names it.

The JSON is renamed into place last, so it always names a whole one.
"""

import dataclasses
import pathlib

import keras

from cnnrnn import errors, metrics, phases
from cnnrnn.system import atomic_files, checksummed
from cnnrnn.system import text as text_lib


@dataclasses.dataclass(frozen=True)
class Best:
    """The best weights of a phase: their file, the epoch (from 1) and the validation figures."""

    weights: pathlib.Path
    sha256: str
    class_names: tuple[str, ...]
    phase: str
    epoch: int
    validation: metrics.Means


def save(
    directory: pathlib.Path,
    phase: phases.Phase,
    model: keras.Model,
    class_names: tuple[str, ...],
    epoch: int,
    validation: metrics.Means,
) -> None:
    """Replaces a phase's best weights.

    Raises:
        RunError: they cannot be written; the ones before stay.
    """
    weights = directory / f"{phase.name}-epoch{epoch:04d}.weights.h5"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        atomic_files.check_free_space(
            directory, 4.1 * model.count_params(), "saving", atomic_files.KEEPS_EARLIER
        )
        with atomic_files.replacing(weights) as temporary:
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
    # The ones before, and what a process that was killed has left half written.
    for old in directory.glob(f"*{phase.name}-epoch*.weights.h5"):
        if old != weights:
            old.unlink()


def find(directory: pathlib.Path, phase: phases.Phase) -> Best | None:
    """The best weights that a phase has left in a folder, None if it has left none.

    Raises:
        RunError: its record is damaged, or names a file that is not there.
    """
    path = directory / f"{phase.name}.json"
    if not path.exists():
        return None
    try:
        record = checksummed.read_json(path)
        record["weights"] = directory / record["weights"]
        record["class_names"] = tuple(record["class_names"])
        best = Best(**record | {"validation": metrics.Means(**record["validation"])})
    except (ValueError, KeyError, TypeError) as error:
        raise errors.RunError(f"{path} cannot be used ({error}): train the phase again.") from error
    if not best.weights.is_file():
        raise errors.RunError(f"{path} names {best.weights.name}, which is gone: train again.")
    return best


def latest(directory: pathlib.Path) -> Best:
    """The best weights of the last phase that has any.

    Raises:
        UsageError: there are none.
    """
    for phase in reversed(phases.BY_NAME.values()):
        best = find(directory, phase)
        if best is not None:
            return best
    raise errors.UsageError(
        f"there are no trained weights in {directory}: run phase1 first, with the same flags, or "
        "name a run that has been trained (--run, --runs_dir, --init_from)."
    )


def load(best: Best, model: keras.Model, class_names: tuple[str, ...]) -> None:
    """Fills a model with best weights.

    Raises:
        UsageError: they are of other classes.
        RunError: the file is not as it was written.
    """
    if best.class_names != class_names:
        before, now = text_lib.first_difference(best.class_names, class_names)
        raise errors.UsageError(
            f"{best.weights} is of {len(best.class_names)} classes, the data set has "
            f"{len(class_names)}, and the first that differ are {before!r} and {now!r}: name a "
            "run that was trained on the same classes."
        )
    if checksummed.file_digest(best.weights) != best.sha256:
        raise errors.RunError(
            f"{best.weights} is damaged: its content has changed since it was written. Put the "
            "file back, or train the phase again."
        )
    try:
        model.load_weights(best.weights)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise errors.RunError(f"{best.weights} is of another network: {error}") from error
