"""One folder per paper; papers do not import each other (`compare` uses the others' algorithms)."""
