"""The HTTP server and its request batching; independent of the model."""
