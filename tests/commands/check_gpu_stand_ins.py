"""What test_check_gpu runs in child processes; without TensorFlow, so that they start fast."""

import json
import math
import os
import sys

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.gpu_check.measurement import Measurement

LOSSES = {"phase1": [4.6, 4.5], "phase2": [4.7, 4.4]}
FIGURES = {
    "installation": {"devices": 2},
    "training_steps": {"losses": [4.6, 4.5]},
    "replicas": {"losses": LOSSES},
    "determinism": {"float32": "a digest"},
}


def passing(name, config, *arguments):
    return Measurement(True, f"{name} is well", FIGURES.get(name, {}))


def without_gpu(name, config, *arguments):
    return Measurement(False, "No GPU here.")


def with_one_gpu(name, config, *arguments):
    return Measurement(True, "1 GPU", {"devices": 1})


def of_the_recipe(name, config, *arguments):
    """Fails if an option of training differs from the recipe."""
    same = {"runs_dir": config.run.runs_dir, "dataset": config.data.dataset}
    same |= {"logical_cpus": config.run.logical_cpus, "precision": config.training.precision}
    if config != config_lib.Config.of(xception_weights="none", **same):
        raise errors.RunError(f"other settings: {config.to_flags()}")
    return passing(name, config, *arguments)


def failing(name, config, *arguments):
    """Each measurement fails in its own way."""
    if name == "lstm_kernels":
        os._exit(7)
    if name == "input_images":
        raise MemoryError("2 GB on the GPU")
    if name == "training_steps":
        wrong = {
            "phase1 bfloat16": [4.6, 9.9],
            "phase2 bfloat16": [4.6, 4.6],
            "phase2 float16": [4.6, math.nan],
        }
        losses = wrong.get(f"{arguments[0]} {config.training.precision}", [4.6, 4.5])
        return Measurement(True, "so fast", {"losses": losses})
    if name == "replicas":
        if config.training.batch_size != (34, 16):
            raise errors.RunError(f"the batch sizes are {config.training.batch_size}")
        losses = LOSSES if arguments[0] else LOSSES | {"phase2": [4.7, math.nan]}
        return Measurement(True, "", {"losses": losses})
    if name == "determinism":
        digest = os.urandom(8).hex() if config.run.deterministic else "the same"
        return Measurement(True, "", {"float32": "the same", "bfloat16": digest})
    return passing(name, config, *arguments)


if __name__ == "__main__":  # as the program's command line
    word, *flags = sys.argv[1:]
    on_cpu = os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"
    if word == "predict":
        for number in range(4):
            probability = 0.1 * number + (0.02 if on_cpu and number == 3 else 0)
            classes = [{"class": "a", "probability": probability}]
            print(json.dumps({"path": "x", "classes": classes}))
    if word == "verify-resume":
        print("one line\nthe last line", file=sys.stderr)
        sys.exit(1)
