"""Benchmarks against Keras's model.fit and PyTorch; run by hand, by `./run.sh bench`."""
