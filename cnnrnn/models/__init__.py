"""The two-branch network, its layers, its pretrained weights, its attribution maps."""
