"""A ticket (mask + weights) and its file, iterative magnitude pruning, nets cut to their ticket."""
