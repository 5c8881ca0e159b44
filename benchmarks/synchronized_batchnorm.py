"""Phase 2's training step on two logical CPUs: this program's synchronized BatchNorm and Keras's.

    CUDA_VISIBLE_DEVICES=-1 python -m benchmarks.synchronized_batchnorm
        [--batch=8] [--rounds=5] [--precision=bfloat16]

Both networks are in one process and take turns, one step each per round, so that a machine whose
speed drifts slows both.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from unittest import mock

import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

# isort: split
import keras
import numpy as np
import tensorflow as tf

from benchmarks import contestants
from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import input_pipeline
from cnnrnn.models import batch_norm
from cnnrnn.system import devices
from cnnrnn.training import steps, train_state

REPLICAS = 2


class KerasBatchNormalization(batch_norm.BatchNormalization):
    """Keras's implementation, in training too."""

    call = keras.layers.BatchNormalization.call


KINDS = {"Keras": KerasBatchNormalization, "cnnrnn": batch_norm.BatchNormalization}


@dataclasses.dataclass
class Trained:
    """A network and its traced training step.

    Attributes:
        step: the function.
        tracing_seconds: time to trace it.
        collectives: number in the graph, of all replicas.
        seconds: one for each measured step.
    """

    step: steps.TrainStep
    tracing_seconds: float
    collectives: int
    seconds: list[float] = dataclasses.field(default_factory=list)


def trained(kind: type, precision: str, batch: dict, strategy: tf.distribute.Strategy) -> Trained:
    """Builds the network with BatchNorm layers of one kind, and traces its step.

    Args:
        kind: one of KINDS.
        precision: "float32" or "bfloat16".
        batch: from `input_pipeline.distribute`.
        strategy: of several replicas.
    """
    settings = config_lib.Config.of(precision=precision)
    with mock.patch.object(batch_norm, "BatchNormalization", kind):
        network = train_state.build_network(contestants.CLASSES, settings, strategy)
    state = train_state.create(network, phases.PHASE2, settings, strategy)
    size = sum(len(share) for share in strategy.experimental_local_results(batch["label"]))
    step = steps.make_train_step(state, strategy, size)
    start = time.perf_counter()
    graph = step.get_concrete_function(batch).graph
    seconds = time.perf_counter() - start
    collectives = sum(op.type.startswith("Collective") for op in graph.get_operations())
    return Trained(step, seconds, collectives)


def measure(precision: str, batch: dict, rounds: int, strategy: tf.distribute.Strategy) -> dict:
    """Trains networks of both kinds in turn, after one step each that is not measured.

    Returns:
        A `Trained` for each of KINDS.
    """
    result = {name: trained(kind, precision, batch, strategy) for name, kind in KINDS.items()}
    for number in range(rounds + 1):
        for entry in result.values():
            start = time.perf_counter()
            loss = entry.step(batch)[0].numpy()[0]
            if number:
                entry.seconds.append(time.perf_counter() - start)
            if not np.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss}")
    return result


def row(precision: str, result: dict[str, Trained]) -> str:
    """One row of the table; the ratios are Keras's time by this program's."""
    theirs, ours = result["Keras"], result["cnnrnn"]
    medians = [statistics.median(entry.seconds) for entry in (theirs, ours)]
    ratio = statistics.median(
        a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)
    )  # of steps of one round
    tracing = [entry.tracing_seconds for entry in (theirs, ours)]
    cells = [
        precision,
        *(f"{seconds:.2f}" for seconds in medians),
        f"{ratio:.2f}",
        *(f"{seconds:.0f}" for seconds in tracing),
        *(str(entry.collectives) for entry in (theirs, ours)),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = """\
| precision | step s, Keras | cnnrnn | ratio | tracing s, Keras | cnnrnn | collectives, Keras | cnnrnn |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""  # noqa: E501


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="images of both replicas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args(argv)
    strategy = devices.strategy(REPLICAS)
    synthetic = contestants.batch_of(arguments.batch)
    del synthetic["features"]
    data = tf.data.Dataset.from_tensors(synthetic)
    batch = next(iter(input_pipeline.distribute(data, strategy)))
    result = measure(arguments.precision, batch, arguments.rounds, strategy)
    print(f"{HEADER}\n{row(arguments.precision, result)}")


if __name__ == "__main__":
    main(sys.argv[1:])
