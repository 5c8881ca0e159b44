"""The two-branch network: its layers, its pretrained weights and its attribution maps."""
