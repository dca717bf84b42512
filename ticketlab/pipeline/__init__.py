"""What DVC and the command line do: parameters, papers by name, plans, notebook runs, verify."""
