"""The checks of `check-gpu`, each in a process of its own."""
