"""The photos data set."""
