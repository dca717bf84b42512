"""Shared by DVC's stages and the command line: parameters, papers, plans, notebook runs, verify."""
