"""The data sets that come with the program, each a folder as `tfds new` makes it."""
