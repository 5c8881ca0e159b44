"""The checks of `check-gpu`, each in a process of its own: does training work on these devices?"""
