"""Files that run without this package: SavedModel, Keras, LiteRT."""
