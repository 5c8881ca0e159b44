"""What test_check_gpu runs in child processes; without TensorFlow, so that they start fast."""

import json
import os
import sys

from cnnrnn import errors
from cnnrnn.gpu_check.measurement import Measurement

LOSSES = {"phase1": [4.6, 4.5], "phase2": [4.7, 4.4]}
FIGURES = {
    "installation": {"devices": 2},
    "training_steps": {"losses": [4.6]},
    "replicas": {"losses": LOSSES},
    "determinism": {"different": 0},
}


def passing(name, config, *arguments):
    return Measurement(True, f"{name} is well", FIGURES.get(name, {}))


def without_gpu(name, config, *arguments):
    return Measurement(False, "No GPU here.")


def with_one_gpu(name, config, *arguments):
    return Measurement(True, "1 GPU", {"devices": 1})


def failing(name, config, *arguments):
    """Each measurement fails in its own way."""
    if name == "lstm_kernels":
        os._exit(7)
    if name == "input_images":
        raise MemoryError("2 GB on the GPU")
    if name == "training_steps" and config.training.precision != "float32":
        return Measurement(True, "so fast", {"losses": [4.6 if arguments[0] == "phase1" else 9.9]})
    if name == "replicas":
        if arguments[1] != (32, 16):
            raise errors.RunError(f"the batch sizes are {arguments[1]}")
        losses = LOSSES if arguments[0] else LOSSES | {"phase2": [4.7, 4.41]}
        return Measurement(True, "", {"losses": losses})
    if name == "determinism":
        text = "identical" if not config.run.deterministic else "3 of 9 variables differ"
        return Measurement(not config.run.deterministic, text)
    return passing(name, config, *arguments)


if __name__ == "__main__":  # as the program's command line
    word, *flags = sys.argv[1:]
    probability = 0.5 if os.environ.get("CUDA_VISIBLE_DEVICES") is None else 0.7
    if word == "predict":
        for _ in range(4):
            classes = [{"class": "a", "probability": probability}]
            print(json.dumps({"path": "x", "classes": classes}))
    if word == "verify-resume":
        print("one line\nthe last line", file=sys.stderr)
        sys.exit(1)
