"""PrAC (Zhang et al., ICML 2021): tickets from a small, pruning-aware critical subset of data."""
