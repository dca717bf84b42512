"""The papers by name: every folder of `ticketlab/papers` defines one `PAPER`."""

from importlib import import_module
from pkgutil import iter_modules

from ticketlab import papers
from ticketlab.study.paper import Paper

PAPERS: dict[str, Paper] = {
    found.name: import_module(f"{papers.__name__}.{found.name}").PAPER
    for found in iter_modules(papers.__path__)
    if found.ispkg
}
