"""All four papers on one bench: same data, nets, budget and seeds."""
