"""Training of several nets at once: stacks, lanes, and `train_many`, which chooses among them."""
