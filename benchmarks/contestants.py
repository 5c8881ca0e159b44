"""Training steps of the whole network on made-up data: this program's, and plain Keras's.

Each function builds a contestant and returns run(n), which trains n steps, and its parameters.
"""

from collections.abc import Callable

import numpy as np

BATCH = {1: 32, 2: 16}
CLASSES = 100
PARAMETERS = 103_256_716
PEAK_SIZE = 3072

Contestant = tuple[Callable[[int], None], int]


def batch_of(size: int) -> dict[str, np.ndarray]:
    """A batch as the input pipeline makes them, with both "image" and "features"."""
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
    """This program. `cached`: in phase 1 the features are given, else each step runs the CNN."""
    import cnnrnn  # noqa: F401  before TensorFlow: it says which kernels are to be used

    # isort: split
    import tensorflow as tf

    from cnnrnn import config, phases
    from cnnrnn.datasets import input_pipeline
    from cnnrnn.models import network as network_lib
    from cnnrnn.system import devices as devices_lib
    from cnnrnn.training import steps

    strategy = devices_lib.strategy()
    which = (phases.PHASE1, phases.PHASE2)[phase - 1]
    settings = config.Config()
    with strategy.scope():
        network = network_lib.build(CLASSES, precision=precision)
        phases.set_trainable(network, which, settings)
        optimizer = which.optimizer(settings.training.learning_rate[which.index])
        optimizer.build(network.model.trainable_variables)
    step = steps.make_train_step(network, optimizer, strategy, BATCH[phase])
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
    """The same network of Keras's layers alone, trained by model.fit."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    image = keras.Input((299, 299, 3), name="image")
    rows = keras.Input((23, 3887), name="rows")
    cnn = keras.applications.Xception(include_top=False, weights=None, pooling="avg")
    cnn.trainable = phase == 2
    x = keras.layers.LSTM(2048, return_sequences=True)(rows)
    x = keras.layers.LSTM(2048)(x)
    x = keras.layers.Multiply()([cnn(image), x])
    logits = keras.layers.Dense(CLASSES, dtype="float32")(x)
    model = keras.Model({"image": image, "rows": rows}, logits)
    model.compile(
        keras.optimizers.RMSprop(1e-3) if phase == 1 else keras.optimizers.Adam(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batch = batch_of(BATCH[phase])
    inputs = {name: batch[name] for name in ("image", "sequence")}
    data = tf.data.Dataset.from_tensors((inputs, batch["label"])).repeat()

    def run(count: int) -> None:
        loss = model.fit(data, steps_per_epoch=count, verbose=0).history["loss"][0]
        if not np.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss}")

    return run, model.count_params()


def peak(precision: str) -> Contestant:
    """Products of two square matrices of PEAK_SIZE: what the machine can do at most."""
    import cnnrnn  # noqa: F401

    # isort: split
    import tensorflow as tf

    a = tf.cast(tf.random.normal((PEAK_SIZE, PEAK_SIZE)), precision)
    product = tf.function(lambda: tf.matmul(a, a))

    def run(count: int) -> None:
        for _ in range(count):
            product()

    return run, 0
