"""Images: their sources, prepared files, and the data sets of a study with their batches."""
