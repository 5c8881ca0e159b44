"""The network in a training loop of one's own.

PYTHONPATH=. .venv/bin/python examples/own_loop.py path/to/images  # a folder for each class
"""

import pathlib
import sys

import cnnrnn  # before TensorFlow: it selects the kernels

# isort: split
import keras
import tensorflow as tf


def batches(root: pathlib.Path, batch_size: int) -> tuple[tf.data.Dataset, list[str]]:
    """Batches of both views and the label, and the class names."""
    names = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    paths = sorted(path for path in root.glob("*/*") if path.is_file())
    labels = [names.index(path.parent.name) for path in paths]
    views = cnnrnn.Preprocessing()

    def load(path, label):
        image = cnnrnn.decode_image(tf.io.read_file(path))  # (height, width, 3) uint8
        return views.inputs(image) | {"label": label}  # (299, 299, 3) and (23, 3887)

    images = tf.data.Dataset.from_tensor_slices((list(map(str, paths)), labels))
    return images.shuffle(len(paths), seed=0).map(load).batch(batch_size), names


def main(root: pathlib.Path, epochs: int = 2, xception: str = "imagenet") -> list[float]:
    data, names = batches(root, batch_size=8)
    network = cnnrnn.build_network(len(names))  # .model, and its parts .cnn, .rnn, .fusion
    cnnrnn.load_xception_weights(network.cnn, xception)  # "none": random ones
    network.cnn.trainable = False
    optimizer = keras.optimizers.RMSprop(1e-3)

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            logits = network.logits(batch, training=True)  # (B, classes)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
            loss = tf.reduce_mean(losses)
        variables = network.model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    means = []
    for epoch in range(epochs):
        losses = [float(step(batch)) for batch in data]
        means.append(sum(losses) / len(losses))
        print(f"epoch {epoch + 1}: loss {means[-1]:.4f}")
    return means


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
