"""Tickets (mask + weights) and their files, iterative magnitude pruning, compaction."""
