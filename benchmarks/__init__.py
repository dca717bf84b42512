"""Our speed compared with the peers' loops: `make bench`, `make bench-gpu`."""
