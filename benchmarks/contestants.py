"""Training steps of the full-size network on synthetic data: this program's and plain Keras's.

Each function builds a contestant and returns run(n), which trains n steps, and the number of
parameters of its network.
"""

from collections.abc import Callable

import numpy as np

from benchmarks import arithmetic

BATCH = {1: 32, 2: 16}  # images per step, by phase
CLASSES = 100
PARAMETERS = 103_256_716
PEAK_SIZE = 3072

Contestant = tuple[Callable[[int], None], int]


def batch_of(size: int) -> dict[str, np.ndarray]:
    """A synthetic batch with the keys of the input pipeline, with both "image" and "features"."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (size, 299, 299, 3)).astype(np.float32)
    return {
        "image": image,
        "features": rng.uniform(0, 1, (size, 2048)).astype(np.float32),
        "sequence": image.mean(axis=-1).reshape(size, 23, 3887),
        "label": rng.integers(0, CLASSES, size),
        "index": np.arange(size),
        "weight": np.ones(size, np.float32),
    }


def program(phase: int, precision: str, *, cached: bool = True) -> Contestant:
    """The network, optimizer and training step of this program.

    Args:
        phase: 1 or 2.
        precision: "float32" or "bfloat16".
        cached: whether phase 1 reads the CNN features from the batch, as from the feature cache;
            otherwise each step runs the CNN forward.
    """
    import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

    # isort: split
    import tensorflow as tf

    from cnnrnn import config as config_lib
    from cnnrnn import phases
    from cnnrnn.datasets import input_pipeline
    from cnnrnn.system import devices as devices_lib
    from cnnrnn.training import steps, train_state

    strategy = devices_lib.strategy()
    settings = config_lib.Config.of(precision=precision)
    network = train_state.build_network(CLASSES, settings, strategy)
    trained_phase = (phases.PHASE1, phases.PHASE2)[phase - 1]
    state = train_state.create(network, trained_phase, settings, strategy)
    step = steps.make_train_step(state, strategy, BATCH[phase])
    batch = batch_of(BATCH[phase])
    del batch["image" if phase == 1 and cached else "features"]
    batches = input_pipeline.distribute(tf.data.Dataset.from_tensors(batch).repeat(), strategy)

    def run(count: int) -> None:
        for _ in range(count):
            loss = step(next(batches))[0].numpy()[0]
            if not np.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss}")

    return run, network.model.count_params()


def keras_fit(phase: int, precision: str) -> Contestant:
    """The same network built from Keras's own layers and trained by model.fit."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    inputs = {
        "image": keras.Input((299, 299, 3), name="image"),
        "sequence": keras.Input((23, 3887), name="sequence"),
    }
    cnn = keras.applications.Xception(include_top=False, weights=None, pooling="avg")
    cnn.trainable = phase == 2
    x = keras.layers.LSTM(arithmetic.UNITS, return_sequences=True)(inputs["sequence"])
    x = keras.layers.LSTM(arithmetic.UNITS)(x)
    x = keras.layers.Multiply()([cnn(inputs["image"]), x])
    logits = keras.layers.Dense(CLASSES, dtype="float32")(x)
    model = keras.Model(inputs, logits)
    model.compile(
        keras.optimizers.RMSprop(1e-3) if phase == 1 else keras.optimizers.Adam(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batch = batch_of(BATCH[phase])
    data = tf.data.Dataset.from_tensors(({name: batch[name] for name in inputs}, batch["label"]))
    batches = data.repeat()

    def run(count: int) -> None:
        history = model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0)
        loss = history.history["loss"][0]
        if not np.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss}")

    return run, model.count_params()


def peak(precision: str) -> Contestant:
    """Products of two square matrices of PEAK_SIZE: the peak rate of the machine."""
    import cnnrnn  # noqa: F401

    # isort: split
    import tensorflow as tf

    a = tf.cast(tf.random.normal((PEAK_SIZE, PEAK_SIZE)), precision)
    product = tf.function(lambda: tf.matmul(a, a))

    def run(count: int) -> None:
        for _ in range(count):
            product()

    return run, 0
