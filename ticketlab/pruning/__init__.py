"""What is pruned: masks, the criteria and scores that choose them, the zeros of trained nets."""
