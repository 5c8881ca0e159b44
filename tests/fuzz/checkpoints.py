"""Fuzzer of checkpoints and weight files: refused, or an intact one used, never damaged values."""

import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np

from cnnrnn import errors, metrics, phases
from cnnrnn.models import weights_file
from cnnrnn.runs import best_weights, checkpoints
from tests.fuzz import harness, mutations

CLASSES = ("a", "b", "c")


def _network():
    return keras.Sequential(
        [
            keras.Input((5,), name="in"),
            keras.layers.Dense(7, name="hidden"),
            keras.layers.Dense(len(CLASSES), name="out"),
        ]
    )


def make(seed, folder):
    model = _network()
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    position = checkpoints.Position(phases.PHASE1)

    def saver(directory):
        state = checkpoints.State(model, optimizer, position)
        policy = checkpoints.SavePolicy(minutes=10.0, on_failure="stop")
        return checkpoints.Checkpoints(directory, state, CLASSES, policy)

    def fill(value):
        for variable in model.weights:
            variable.assign(np.full(variable.shape, value))
        position.best = value

    def is_filled(value):
        same = all(np.all(variable.numpy() == value) for variable in model.weights)
        return same and (value == 0 or position.best == value)

    intact = folder / "intact"
    for value in (1, 2):
        fill(value)
        saver(intact / "checkpoints").save()
    best_weights.save(
        intact / "best", phases.PHASE1, model, CLASSES, 3, metrics.Means(0.5, 0.5, 0.5, 8)
    )
    for suffix in (".weights.h5", ".keras"):
        file = intact / f"file{suffix}"
        model.save_weights(file) if suffix == ".weights.h5" else model.save(file)
    files = sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file())
    contents = [(intact / name).read_bytes() for name in files]

    def try_one(number):
        rng = np.random.default_rng([seed, number])
        tried = folder / "tried"
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(intact, tried)
        chosen = int(rng.integers(len(files)))
        (tried / files[chosen]).write_bytes(mutations.mutate(contents[chosen], contents, rng))
        fill(0)
        place = files[chosen].parts[0]
        if place == "checkpoints":
            try:
                used = saver(tried / "checkpoints").restore()
            except (errors.RunError, errors.UsageError):
                return "checkpoint refused"
            if not is_filled(int(used.name)):
                raise AssertionError(f"{files[chosen]}: {used} was restored with other values")
            return f"checkpoint {int(used.name)} used"
        if place == "best":
            try:
                best_weights.load(best_weights.find(tried / "best", phases.PHASE1), model, CLASSES)
            except (errors.RunError, errors.UsageError):
                return "best weights refused"
            if not all(np.all(variable.numpy() == 2) for variable in model.weights):
                raise AssertionError(f"{files[chosen]}: loaded with other values")
            return "best weights loaded"
        try:
            arrays = weights_file.read(tried / files[chosen], model.layers)
        except weights_file.Unusable:
            return "weight file refused"
        shapes = [array.shape for array in arrays]
        if shapes != [tuple(variable.shape) for variable in model.weights]:
            raise AssertionError(f"{files[chosen]}: shapes {shapes}")
        return "weight file read"

    return try_one


if __name__ == "__main__":
    harness.main(make)
