"""Time of the weights' update in one step: Keras's optimizers and this program's.

    CUDA_VISIBLE_DEVICES=-1 python -m benchmarks.optimizers [--rounds=10]

Both update the same weights of the full-size network by random gradients, and take turns, one step
each per round, so that a machine whose speed drifts slows both.
"""

import argparse
import statistics
import sys
import time

import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

# isort: split
import keras
import tensorflow as tf

from benchmarks import contestants
from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.models import network as network_lib
from cnnrnn.training import fused_optimizers, train_state

RATE = 1e-6
CASES = ((phases.PHASE1, "RMSprop"), (phases.PHASE2, "Adam"), (phases.PHASE2, "AdamW"))
HEADER = """\
| weights | optimizer | s, Keras | s, cnnrnn | ratio |
| --- | --- | ---: | ---: | ---: |"""


def compiled(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> tf.types.experimental.PolymorphicFunction:
    """f(gradients) applies one step."""
    optimizer.build(variables)

    @tf.function
    def step(gradients: list[tf.Tensor]) -> tf.Tensor:
        optimizer.apply(gradients, variables)
        return optimizer.iterations.value

    return step


def measure(variables: list[keras.Variable], name: str, rounds: int) -> list[list[float]]:
    """Seconds of Keras's steps and of this program's, after one each that is not measured."""
    gradients = [tf.random.normal(variable.shape) for variable in variables]
    pair = [
        compiled(getattr(module, name)(RATE), variables)
        for module in (keras.optimizers, fused_optimizers)
    ]
    seconds = [[], []]
    for number in range(rounds + 1):
        for step, times in zip(pair, seconds, strict=True):
            start = time.perf_counter()
            step(gradients).numpy()
            if number:
                times.append(time.perf_counter() - start)
    return seconds


def row(network: network_lib.Network, phase: phases.Phase, name: str, rounds: int) -> str:
    """One row of the table; the ratio is the median of those of the rounds."""
    phases.set_trainable(network, phase, config_lib.Config())
    variables = network.model.trainable_variables
    weights = sum(variable.value.shape.num_elements() for variable in variables)
    theirs, ours = measure(variables, name, rounds)
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    medians = (f"{statistics.median(times):.3f}" for times in (theirs, ours))
    return f"| {' | '.join((f'{weights:,}', name, *medians, f'{ratio:.1f}'))} |"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args(argv).rounds
    settings = config_lib.Config.of(precision="float32")
    network = train_state.build_network(contestants.CLASSES, settings, tf.distribute.get_strategy())
    print(HEADER)
    for phase, name in CASES:
        print(row(network, phase, name, rounds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
