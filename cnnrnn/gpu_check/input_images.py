"""The input pipeline and the extraction of features: images/s of each."""

import itertools

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.gpu_check import measurement
from cnnrnn.gpu_check import session as session_lib
from cnnrnn.training import feature_cache, steps


def measure(config: config_lib.Config) -> measurement.Measurement:
    """Measures both. Figures, in images/s: "pipeline" with both inputs of the network, "sequences"
    with the gray one alone, "extraction", "extraction_in_memory"."""
    session = session_lib.Session(phases.PHASE1, config)
    size = feature_cache.batch_size(session.strategy)
    extract = steps.make_feature_step(session.state.network, session.strategy)
    batch = next(session.batches(size, cached=False))
    figures = {
        "pipeline": session_lib.rate(_nothing, session.batches(size, cached=False), size),
        "sequences": session_lib.rate(_nothing, session.batches(size, cached=True), size),
        "extraction": session_lib.rate(extract, session.batches(size, cached=False), size),
        "extraction_in_memory": session_lib.rate(extract, itertools.repeat(batch), size),
    }
    return measurement.Measurement(
        True,
        "{pipeline:.0f} images/s decoded and resized ({sequences:.0f} if features are cached); "
        "features {extraction:.1f}, {extraction_in_memory:.1f} without the pipeline".format(
            **figures
        ),
        figures,
    )


def _nothing(batch: steps.Batch) -> tuple[()]:
    """A step that only takes its batch."""
    return ()
