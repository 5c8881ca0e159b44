"""The settings: default, help text and check of each, a group in each module."""
