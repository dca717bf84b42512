"""Our speed beside the peers' loops: `make bench`, `make bench-gpu`."""
