"""What every paper's study shares: units and their store, claims and verdicts, tables and plots."""
