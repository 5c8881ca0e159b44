"""The digit_stacks data set."""
