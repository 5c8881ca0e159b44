"""Data sets that come with the program, each a folder in the layout of `tfds new`."""
