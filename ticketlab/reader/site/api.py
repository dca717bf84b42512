"""Sources of the API reference: a page per package, a section per module, from the docstrings."""

from collections.abc import Iterator
from pathlib import Path

from ticketlab.files import write_atomically

LEFT_OUT = {"__main__", "scaffold"}
"""The program itself, and templates of files that are not modules here."""


INDEX = """\
# API reference

The public modules of `ticketlab`, from their docstrings. Each paper is a package of its own.

```{toctree}
ENTRIES
```
"""


def stage(folder: Path, root: Path) -> None:
    """Write the pages of all packages of the project at `root`; nothing where it has no code."""
    found = packages(root / "ticketlab")
    for name, modules in found.items():
        write_atomically(folder / f"{name}.rst", page(name, modules).encode())
    if found:
        entries = "\n".join(f"{name.removeprefix('ticketlab.')} <{name}>" for name in found)
        write_atomically(folder / "index.md", INDEX.replace("ENTRIES", entries).encode())


def packages(package: Path) -> dict[str, list[str]]:
    """The modules by the page that documents them: one per folder, one per paper."""
    found: dict[str, list[str]] = {}
    for module in sorted(_modules(package)):
        parts = module.split(".")
        depth = 3 if parts[1:2] == ["papers"] else 2
        found.setdefault(".".join(parts[:depth]), []).append(module)
    single = [name for name in found if (package / f"{name.partition('.')[2]}.py").exists()]
    own = [*found.pop(package.name, []), *(module for name in single for module in found.pop(name))]
    return ({package.name: own} if own else {}) | found


def _modules(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        if not LEFT_OUT & set(parts):
            yield ".".join(parts).removesuffix(".__init__")


def page(name: str, modules: list[str]) -> str:
    """The reST page of a package: its own docstring, then its modules."""
    parts = [name, "=" * len(name), ""]
    for module in modules:
        if module != name:
            title = module.removeprefix(f"{name}.")
            parts += [title, "-" * len(title), ""]
        parts += [f".. automodule:: {module}", "   :members:", "   :ignore-module-all:", ""]
    return "\n".join(parts)
