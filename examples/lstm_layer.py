"""The LSTM layer in another Keras model: the rows of handwritten digits as a sequence.

    PYTHONPATH=. .venv/bin/python examples/lstm_layer.py

It has the variables, values and gradients of keras.layers.LSTM, so the weights of one load into the
other. Its kernel computes the products of all timesteps at once.
"""

import cnnrnn  # before TensorFlow: it selects the kernels

# isort: split
import keras
import sklearn.datasets


def main(units: int = 64, epochs: int = 8) -> float:
    digits = sklearn.datasets.load_digits()
    images, labels = digits.images / 16.0, digits.target  # (1797, 8, 8): 8 timesteps of 8 values
    keras.utils.set_random_seed(0)
    sequence = keras.Input((8, 8))
    x = cnnrnn.LSTM(units, return_sequences=True)(sequence)
    x = cnnrnn.LSTM(units)(x)
    model = keras.Model(sequence, keras.layers.Dense(10)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    history = model.fit(
        images, labels, batch_size=32, epochs=epochs, validation_split=0.2, verbose=0
    )
    accuracy = history.history["val_accuracy"][-1]
    print(f"accuracy on the last fifth of the digits: {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
