"""Images: where they come from, prepared files, and the sets of a study with their batches."""
