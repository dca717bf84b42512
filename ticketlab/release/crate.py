"""ro-crate-metadata.json: what a release is and what each of its files is, as RO-Crate 1.1."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ticketlab.files import parse_yaml
from ticketlab.release.contents import FACTS, SUMS, VERDICTS, Release
from ticketlab.spec import InputError

NAME = "ro-crate-metadata.json"
MIT = "https://spdx.org/licenses/MIT"

TYPES = {
    ".csv": "text/csv",
    ".css": "text/css",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown",
    ".npz": "application/zip",
    ".png": "image/png",
    ".py": "text/x-python",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
"""Media types by suffix; other files have none."""

ABOUT = {
    "CITATION.cff": "How to cite this package and the papers",
    "LICENSE": "The licence of code and results",
    "README.md": "What was found, and how to start",
    "constraints.txt": "The exact version of every package of the environment",
    "dvc.lock": "The hash of everything that each stage read and wrote",
    "dvc.yaml": "The stages of the pipeline",
    "manifest.json": "Every ticket with its sparsity, its SHA-256 and the key of its unit",
    "params.yaml": "The parameters of the study desk, and which studies run",
    FACTS: "From which commit the release was made, and which studies it has",
    SUMS: "The SHA-256 of every other file",
    VERDICTS: "The verdict on every claim with its number",
}
"""What the main files are, by name."""

ABOUT_RESULTS = {
    "findings.md": "What was found, in sentences",
    "machine.json": "The machine and the versions with which the results were made",
    "metrics.json": "Every number with its interval",
    "seeds.csv": "The numbers per seed behind every interval, share and count",
}
"""What files below results/ are, by the last part of their name."""

LICENCES = {
    "data/fashion_mnist_22k.npz": "data/LICENSE-fashion-mnist.txt",
    "data/mnist_5k.npz": "data/LICENSE-mnist.txt",
}
"""Data sets that have a licence of their own."""


def metadata(release: Release, sizes: Mapping[str, int], citation: bytes) -> bytes:
    """The content of NAME for files of these sizes; `citation` is the content of CITATION.cff.

    InputError if the package rocrate is not installed.
    """
    try:
        from rocrate.model import ContextEntity
        from rocrate.rocrate import ROCrate
    except ImportError:
        install = "`pip install 'ticketlab[release]'` installs it"
        raise InputError(f"release: the package rocrate is missing, {install}") from None
    crate, cited = ROCrate(version="1.1"), parse_yaml(citation, "CITATION.cff")

    def entity(identifier: str, kind: str, **properties: Any) -> Any:
        found = {"@type": kind, **properties}
        return crate.add(ContextEntity(crate, identifier, properties=found))

    authors = [
        entity(f"#{_author(one)}", _kind(one), name=_author(one)) for one in cited["authors"]
    ]
    papers = [
        entity(link, "ScholarlyArticle", **_paper(one))
        for one in cited["references"]
        for link in _links(one)
    ]
    said = "Of code and results; the data sets keep their own licences."
    licence = entity(MIT, "CreativeWork", name="MIT License", description=said)
    root = crate.root_dataset
    root["name"] = f"{cited['title']}: {', '.join(release.studies)}"
    root["description"] = (
        f"Code, parameters, results{' and tickets' if release.tickets else ''} of the studies "
        f"{', '.join(release.studies)} at commit {release.commit}."
    )
    root["datePublished"], root["version"] = release.date, release.ticketlab
    root["license"], root["author"], root["citation"] = licence, authors, papers
    root["keywords"] = ", ".join(cited["keywords"])
    for name in sorted(sizes):
        crate.add_file(name, name, properties=_properties(name, sizes[name]))
    return (json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False) + "\n").encode()


def _properties(name: str, size: int) -> dict[str, Any]:
    """What is said of one file."""
    place = PurePosixPath(name)
    about = ABOUT.get(name) or (
        ABOUT_RESULTS.get(place.name) if place.parts[0] == "results" else ""
    )
    found = {
        "contentSize": str(size),
        "encodingFormat": TYPES.get(place.suffix),
        "description": about,
    }
    licence = {"license": {"@id": LICENCES[name]}} if name in LICENCES else {}
    return {key: value for key, value in found.items() if value} | licence


def _author(one: Mapping[str, str]) -> str:
    """'Zhenyu Zhang', or the name of a group."""
    return one.get("name") or f"{one['given-names']} {one['family-names']}"


def _kind(author: Mapping[str, str]) -> str:
    return "Organization" if "name" in author else "Person"


def _paper(reference: Mapping[str, Any]) -> dict[str, str]:
    """What is said of a cited paper."""
    authors = ", ".join(map(_author, reference["authors"]))
    year = str(reference["year"])
    return {"name": reference["title"], "author": authors, "datePublished": year}


def _links(reference: Mapping[str, Any]) -> list[str]:
    """The address of a cited paper, from its arXiv number."""
    values = [str(one["value"]) for one in reference.get("identifiers", ())]
    numbers = [value.removeprefix("arXiv:") for value in values if value.startswith("arXiv:")]
    return [f"https://arxiv.org/abs/{number}" for number in numbers[:1]]
