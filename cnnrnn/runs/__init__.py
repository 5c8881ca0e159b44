"""What a run keeps on disk: checkpoints, best weights, settings, events."""
