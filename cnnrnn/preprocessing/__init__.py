"""Preprocessing: from encoded images to the inputs of both branches, as TensorFlow ops."""
