"""The digits data set."""
