"""A two-branch image classifier: a pretrained Xception times an LSTM that reads the picture."""
