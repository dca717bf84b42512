"""Shared by all papers' studies: units and their store, claims and verdicts, tables and plots."""
