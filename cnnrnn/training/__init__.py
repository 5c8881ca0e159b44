"""One phase of training, from its initial weights to its last checkpoint."""
