"""The benchmark of synchronized BatchNorm, with the small network."""

import pytest
import tensorflow as tf

from benchmarks import contestants, synchronized_batchnorm
from cnnrnn.datasets import input_pipeline
from tests import two_cpus  # noqa: F401


@pytest.mark.slow
def test_both_kinds_are_measured(small_network, two_replicas):
    synthetic = contestants.batch_of(4)
    del synthetic["features"]
    data = tf.data.Dataset.from_tensors(synthetic)
    batch = next(iter(input_pipeline.distribute(data, two_replicas)))
    result = synchronized_batchnorm.measure("float32", batch, 2, two_replicas)
    theirs, ours = result["Keras"], result["cnnrnn"]
    # Its only BatchNorm has three collectives fewer on each of two replicas.
    assert theirs.collectives - ours.collectives == 6
    assert len(theirs.seconds) == len(ours.seconds) == 2
    cells = synchronized_batchnorm.row("float32", result).split("|")
    assert len(cells) == synchronized_batchnorm.HEADER.splitlines()[0].count("|") + 1
