"""From --dataset to checked, shuffled and batched images."""
