"""The HTTP server and its request batching; knows nothing of the model."""
