"""Training of one net: recipe, loop, observers, optimisers."""
