"""Releases: all that a study was made from and gave, in one archive that can be checked alone."""
