"""The two-branch network.

image    (B, S, S, 3) -----> Xception -> average (B, 2048) -+
                                                            x -> Dense -> logits (B, classes)
sequence (B, 23, 3887) -> LSTM 2048 -> LSTM 2048 (B, 2048) -+

`Variant` has other fusions than the product, x, and normalization around the LSTM layers.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from cnnrnn import shapes
from cnnrnn.models import cnn_branch, fusion, rnn_branch

# The name of the sequence's input layer. Keras writes layer names into weight files, and existing
# ones have this name.
SEQUENCE_INPUT = "rows"

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """What differs from the original network; see `settings.network.NetworkSettings`."""

    fusion: str = "product"
    rnn_input: str = "raw"
    rnn_layer_norm: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Variant":
        """The variant of settings by flag name, of a `Config` or a run's config.json.

        Earlier versions did not record it: they had the original network only.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        return cls(**{name: settings.get(name, default) for name, default in fields.items()})


ORIGINAL = Variant()


@dataclasses.dataclass(frozen=True)
class Network:
    """The model and its three parts, which share its layers and weights.

    Attributes:
        model: {"image": (B, S, S, 3), SEQUENCE_INPUT: (B, 23, 3887)} -> logits (B, classes). S is
            299 unless another size was asked for.
        cnn: Xception with pooling, image -> (B, 2048).
        rnn: the two LSTM layers, sequence -> (B, 2048).
        fused: [output of cnn, output of rnn] -> fused features, (B, 2048) or wider.
        fusion: [output of cnn, output of rnn] -> logits (B, classes).
        variant: of the network.
        precision: data type of the operands of products, "float32", "bfloat16" or "float16".
    """

    model: keras.Model
    cnn: keras.Model
    rnn: keras.Model
    fused: keras.Model
    fusion: keras.Model
    variant: Variant = ORIGINAL
    precision: str = "float32"

    @property
    def uses_cnn(self) -> bool:
        """Whether the CNN is part of the model."""
        return self.cnn.layers[-1] in self.model.layers

    @property
    def uses_rnn(self) -> bool:
        """Whether the RNN is part of the model."""
        return self.rnn.layers[-1] in self.model.layers

    @property
    def lstm_kernel(self) -> str:
        """The kernel of the LSTM layers, "ours" or "cudnn"."""
        return self.rnn.get_layer("rnn_features").lstm_kernel

    @property
    def fused_width(self) -> int:
        """The number of fused features, which the last layer classifies."""
        return self.fused.output.shape[-1]

    def branches(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The outputs of both branches, (B, 2048) each; zeros for one that the model leaves out.

        Args:
            batch: "sequence", and "image" or "features". Features are outputs of the CNN that
                were computed earlier; the CNN is not run if they are given.
            training: whether BatchNorm uses the statistics of the batch.
        """
        sequence = batch["sequence"]

        def zeros(branch: keras.Model) -> tf.Tensor:
            return tf.zeros((tf.shape(sequence)[0], branch.output.shape[-1]))

        if "features" in batch:
            cnn = batch["features"]
        elif self.uses_cnn:
            cnn = self.cnn(batch["image"], training=training)
        else:
            cnn = zeros(self.cnn)
        return cnn, self.rnn(sequence, training=training) if self.uses_rnn else zeros(self.rnn)

    def logits(self, batch: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Logits (B, classes) of a batch; see `branches`.

        With "dropout" (B, width) float32 in the batch, the fused features are multiplied by it
        before the last layer.
        """
        features = list(self.branches(batch, training))
        if "dropout" not in batch:
            return self.fusion(features, training=training)
        return self.fusion.get_layer("logits")(self.fused(features) * batch["dropout"])


def build(
    classes: int,
    *,
    seed: int | None = 0,
    synchronized_batchnorm: bool = False,
    precision: str = "float32",
    lstm_kernel: str = "ours",
    variant: Variant = ORIGINAL,
) -> Network:
    """Builds the network with random weights.

    Args:
        classes: number of classes.
        seed: seed of the initial weights; also sets the seeds of Python, NumPy, TensorFlow and
            Keras. None: does not, for a network whose weights are loaded.
        synchronized_batchnorm: compute batch statistics over all replicas. With several replicas
            it makes training equivalent to training on one: the statistics are those of the
            global batch, and the moving averages of the replicas stay equal.
        precision: data type of the operands of products, "float32", "bfloat16" or "float16".
            Weights, statistics, features, head and logits are always float32, so weight files and
            checkpoints are interchangeable.
        lstm_kernel: "ours" or "cudnn"; see `lstm.choose`.
        variant: by default the original network.

    Returns:
        The network, 103,256,716 parameters with 100 classes in the original variant.
    """
    # The user's keras.json may have other values, which would change the network.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    if seed is not None:
        keras.utils.set_random_seed(seed)  # Xception's initializers have no seed of their own
    with policy(precision):
        # Of any size: Xception is fully convolutional, and its output is averaged over positions.
        image = keras.Input((None, None, shapes.CHANNELS), name="image", dtype="float32")
        sequence = keras.Input(
            (shapes.TIMESTEPS, shapes.STEP_FEATURES), name=SEQUENCE_INPUT, dtype="float32"
        )
        cnn = cnn_branch.build(image, synchronized_batchnorm)
        read = sequence
        if variant.rnn_input == "standardized":
            read = rnn_branch.standardized(sequence)
        rnn_features = rnn_branch.build(read, shapes.LSTM_UNITS, seed or 0, lstm_kernel)
        if variant.rnn_layer_norm:
            rnn_features = rnn_branch.normalized(rnn_features)
        logits = fusion.build(cnn.output, rnn_features, classes, (seed or 0) + 4, variant.fusion)
        model = keras.Model({"image": image, SEQUENCE_INPUT: sequence}, logits, name="cnnrnn")
        rnn = keras.Model(sequence, rnn_features, name="rnn")
        return parts_of(model, cnn, rnn, precision, variant)


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Sets the dtype policy of the layers created in this context; restores it afterwards."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def parts_of(
    model: keras.Model,
    cnn: keras.Model,
    rnn: keras.Model,
    precision: str,
    variant: Variant = ORIGINAL,
) -> Network:
    """A `Network` of a model whose last layer is named "logits".

    Args:
        model: of both inputs.
        cnn: its CNN branch.
        rnn: its RNN branch.
        precision: recorded in the Network.
        variant: likewise.
    """
    outputs = [cnn.output, rnn.output]
    fused = keras.Model(outputs, model.get_layer("logits").input, name="fused")
    whole = keras.Model(outputs, model.output, name="fusion")
    return Network(model, cnn, rnn, fused, whole, variant, precision)
