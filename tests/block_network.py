"""A tiny network whose CNN has blocks and a shortcut, as Xception has; it is fast to trace."""

import cnnrnn  # noqa: F401  before TensorFlow: it selects the kernels

# isort: split
import keras
import numpy as np

from cnnrnn import phases
from cnnrnn.models import batch_norm, fusion, lstm
from cnnrnn.models import network as network_lib
from cnnrnn.training import steps, train_state

BATCH, CLASSES, WIDTH = 8, 3, 4


def build(seed: int = 0, synchronized_batchnorm: bool = False, precision: str = "float32"):
    """image (B, 9, 9, 3), sequence (B, 2, 5)."""
    keras.utils.set_random_seed(seed)

    def norm(name, x):
        return batch_norm.BatchNormalization(name=name, synchronized=synchronized_batchnorm)(x)

    with network_lib.policy(precision):
        image = keras.Input((9, 9, 3), name="image", dtype="float32")
        sequence = keras.Input((2, 5), name=network_lib.SEQUENCE_INPUT, dtype="float32")
        x = keras.layers.Conv2D(WIDTH, 3, strides=2, use_bias=False, name="block1_conv1")(image)
        x = norm("block1_conv1_bn", x)
        x = shortcut = keras.layers.ReLU(name="block1_conv1_act")(x)
        x = keras.layers.Conv2D(WIDTH, 3, padding="same", use_bias=False, name="block2_conv1")(x)
        x = norm("block2_conv1_bn", x)
        x = keras.layers.ReLU(name="block2_conv2_act")(x)
        x = keras.layers.Conv2D(WIDTH, 3, padding="same", use_bias=False, name="block2_conv2")(x)
        x = norm("block2_conv2_bn", x)
        shortcut = keras.layers.Conv2D(WIDTH, 1, name="shortcut_1_Conv2D")(shortcut)
        x = keras.layers.Add(name="shortcut_2_Add")([x, shortcut])
        pooling = keras.layers.GlobalAveragePooling2D(dtype="float32", name="cnn_features")
        cnn = keras.Model(image, pooling(x), name="cnn")
        rnn_features = lstm.LSTM(WIDTH, name="rnn_features")(sequence)
        logits = fusion.build(cnn.output, rnn_features, CLASSES, seed)
    inputs = {"image": image, network_lib.SEQUENCE_INPUT: sequence}
    model = keras.Model(inputs, logits, name="blocks")
    rnn = keras.Model(sequence, rnn_features, name="rnn")
    return network_lib.parts_of(model, cnn, rnn, precision)


def batches(count: int, *, mixed: bool = False) -> list[dict[str, np.ndarray]]:
    """Training batches; `mixed`: with mixed labels and a dropout mask."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        batch = {
            "image": rng.uniform(-1, 1, (BATCH, 9, 9, 3)).astype(np.float32),
            "sequence": rng.uniform(-1, 1, (BATCH, 2, 5)).astype(np.float32),
            "label": rng.integers(0, CLASSES, BATCH),
            "index": np.arange(BATCH),
            "weight": np.ones(BATCH, np.float32),
        }
        if mixed:
            batch["other_label"] = rng.integers(0, CLASSES, BATCH)
            batch["share"] = rng.uniform(0.5, 1, BATCH).astype(np.float32)
            batch["dropout"] = (rng.integers(0, 2, (BATCH, WIDTH)) * 2).astype(np.float32)
        made.append(batch)
    return made


class Training:
    """A phase on a strategy, step by step."""

    def __init__(self, strategy, phase, settings, *, precision="float32", class_weights=None):
        self.strategy = strategy
        with strategy.scope():
            synchronized = strategy.num_replicas_in_sync > 1
            self.network = build(synchronized_batchnorm=synchronized, precision=precision)
        self.settings = settings.replace(batch_size=(BATCH, BATCH))
        self.schedule = phases.schedule(phase, self.settings, 2 * BATCH)
        self.state = train_state.create(self.network, phase, self.settings, strategy, self.schedule)
        options = steps.Options.of(phase, self.settings, class_weights)
        self._step = steps.make_train_step(self.state, strategy, BATCH, options)

    def step(self, *batches) -> np.ndarray:
        """Trains on each batch; returns the last sums, (4,)."""
        for batch in batches:
            sums, non_finite = self._step(distributed(self.strategy, batch))
            assert non_finite.numpy() == 0
        return sums.numpy()

    def variables(self) -> list[np.ndarray]:
        """Everything that decides the next step."""
        network, state = self.network, self.state
        variables = [*network.model.variables, *state.optimizer.variables]
        for part in (state.average, state.loss_scale):
            variables += part.trackables().values() if part else ()
        return [np.array(variable) for variable in variables]


def distributed(strategy, batch):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(BATCH)
    return next(iter(strategy.experimental_distribute_dataset(dataset)))
