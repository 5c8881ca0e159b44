"""The two-branch network, both branches on one screen.

image (B, 299, 299, 3) -> Xception -> average (B, 2048) -+
                                                         x -> Dense -> logits (B, classes)
rows  (B, 23, 3887) -> LSTM 2048 -> LSTM 2048 (B, 2048) -+
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.models import cnn_branch, fusion, rnn_branch

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@dataclasses.dataclass(frozen=True)
class Network:
    """The whole model and its three parts, which share their layers with it.

    `model` takes {"image": (B, 299, 299, 3), "sequence": (B, 23, 3887)} and returns logits
    (B, classes). `cnn` is Xception with its pooling, image -> (B, 2048); `rnn` is the two LSTM
    layers, rows -> (B, 2048); `fusion` takes both outputs and returns the logits. Freezing or
    filling a part does so to the model. `precision` is that of the products: "float32",
    "bfloat16" or "float16".
    """

    model: keras.Model
    cnn: keras.Model
    rnn: keras.Model
    fusion: keras.Model
    precision: str = "float32"

    def branches(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Both branches' outputs, each (B, 2048).

        Args:
            batch: has "sequence", and either "image" or "features", the CNN's outputs computed
                earlier; with these the CNN is not run.
            training: whether BatchNorm takes the batch's statistics.
        """
        if "features" in batch:
            cnn = batch["features"]
        else:
            cnn = self.cnn(batch["image"], training=training)
        return cnn, self.rnn(batch["sequence"], training=training)

    def logits(self, batch: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Logits (B, classes) of a batch; see `branches`."""
        return self.fusion(list(self.branches(batch, training)), training=training)


Build = Callable[..., "Network"]  # the signature of `build`


def build(
    classes: int,
    *,
    seed: int = 0,
    synchronized_batchnorm: bool = False,
    precision: str = "float32",
) -> Network:
    """Builds the network with random weights.

    Args:
        classes: number of classes.
        seed: seed of the initial weights.
        synchronized_batchnorm: take batch statistics over all replicas. With several replicas
            this is what makes them equal to one: the statistics are those of the global batch,
            and the moving averages cannot drift apart.
        precision: "float32", "bfloat16" or "float16", of the operands of products. Weights, sums
            over timesteps, statistics, features, head and logits are float32 in each, so weight
            files and checkpoints interchange.

    Returns:
        The network, 103,256,716 parameters with 100 classes.
    """
    # A user's keras.json may say otherwise, and would change the network.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.utils.set_random_seed(seed)  # for Xception, whose initializers take no seed of their own
    with policy(precision):
        return _build(classes, seed, synchronized_batchnorm, precision)


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Layers made in this context compute in a precision; the user's own policy comes back."""
    users = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(users)


def _build(classes: int, seed: int, synchronized_batchnorm: bool, precision: str) -> Network:
    image = keras.Input(
        (shapes.IMAGE_SIZE, shapes.IMAGE_SIZE, shapes.CHANNELS), name="image", dtype="float32"
    )
    rows = keras.Input((shapes.TIMESTEPS, shapes.STEP_FEATURES), name="rows", dtype="float32")
    cnn = cnn_branch.build(image, synchronized_batchnorm)
    rnn_features = rnn_branch.build(rows, shapes.LSTM_UNITS, seed)
    logits = fusion.build(cnn.output, rnn_features, classes, seed + 4)
    model = keras.Model({"image": image, "rows": rows}, logits, name="cnnrnn")
    return parts_of(model, cnn, precision)


def parts_of(model: keras.Model, cnn: keras.Model, precision: str) -> Network:
    """Cuts a model into its parts, by the names of the layers where they meet."""
    rnn = keras.Model(model.input["rows"], model.get_layer("rnn_features").output, name="rnn")
    outputs = [
        keras.Input(part.output.shape[1:], name=name, dtype="float32")
        for part, name in ((cnn, "cnn_output"), (rnn, "rnn_output"))
    ]
    logits = model.get_layer("logits")(model.get_layer("product")(outputs))
    return Network(model, cnn, rnn, keras.Model(outputs, logits, name="fusion"), precision)
