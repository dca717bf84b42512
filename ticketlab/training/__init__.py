"""How one net is trained: recipe, loop, observers, optimisers."""
