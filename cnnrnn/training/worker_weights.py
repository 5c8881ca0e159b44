"""The same weights on all workers: sent by the chief at the start, compared after each epoch."""

import hashlib

import numpy as np
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.models import network as network_lib
from cnnrnn.runs import checkpoints
from cnnrnn.system import workers as workers_lib
from cnnrnn.training import train_state


def share(
    workers: workers_lib.Workers, state: train_state.TrainState, position: checkpoints.Position
) -> None:
    """Gives all workers the chief's weights, optimizer and position, bit for bit."""
    position.to_variables()
    first_sample = tf.Variable(position.first_sample, dtype=tf.int64, trainable=False)
    workers.broadcast(
        (
            *state.network.model.weights,
            *state.optimizer.variables,
            *state.trackables().values(),
            *position.trackables().values(),
            first_sample,
        )
    )
    position.from_variables()
    position.first_sample = int(first_sample.numpy())


def check(workers: workers_lib.Workers, network: network_lib.Network) -> None:
    """Raises RunError unless all workers have the same weights, bit for bit."""
    if workers.count == 1:
        return
    digest = hashlib.sha256()
    for weight in network.model.weights:
        digest.update(np.asarray(weight))
    for _, others in workers.differing({"weights": digest.digest()}).items():
        raise errors.RunError(
            f"worker {others} has other weights than worker 0, the chief, after an epoch, "
            "which was not saved. Start all workers again; if it happens again, check the "
            "memory and the devices of that machine."
        )
