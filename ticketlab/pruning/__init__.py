"""Pruning: masks, the criteria and scores that choose them, and checks of trained nets' zeros."""
