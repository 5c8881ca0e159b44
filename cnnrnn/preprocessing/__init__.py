"""From encoded bytes to the inputs of both branches, as TensorFlow ops."""
