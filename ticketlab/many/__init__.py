"""Several nets trained at once: stacks, lanes, and `train_many` in front of them."""
