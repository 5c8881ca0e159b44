"""A fusion of one's own: the RNN's features become a gate between 0 and 1 for the CNN's.

PYTHONPATH=. .venv/bin/python examples/own_fusion.py path/to/images  # a folder for each class
"""

import pathlib
import sys

import cnnrnn  # before TensorFlow: it selects the kernels

# isort: split
import keras
import own_loop  # beside this file


def gated(classes: int, xception: str) -> keras.Model:
    """Features of the CNN x (1 + sigmoid of the RNN's), then one dense layer."""
    network = cnnrnn.build_network(classes)
    cnnrnn.load_xception_weights(network.cnn, xception)  # "none": random ones
    network.cnn.trainable = False
    cnn, rnn = network.cnn.output, network.rnn.output  # (B, 2048) each
    gate = keras.layers.Dense(cnn.shape[-1], "sigmoid", name="gate")(rnn)
    product = keras.layers.Multiply(name="gated")([cnn, gate])
    fused = keras.layers.Add(name="residual")([cnn, product])
    logits = keras.layers.Dense(classes, name="classes")(fused)
    return keras.Model((network.cnn.input, network.rnn.input), logits)


def main(root: pathlib.Path, epochs: int = 2, xception: str = "imagenet") -> list[float]:
    data, names = own_loop.batches(root, batch_size=8)
    model = gated(len(names), xception)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.RMSprop(1e-3), loss, metrics=["accuracy"])
    pairs = data.map(lambda batch: ((batch["image"], batch["sequence"]), batch["label"]))
    history = model.fit(pairs, epochs=epochs, shuffle=False, verbose=0)  # shuffled already
    print(f"training accuracy: {history.history['accuracy'][-1]:.1%}")
    return history.history["loss"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
