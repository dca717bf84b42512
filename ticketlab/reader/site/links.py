"""Whether every link and every file that a built page names exists; nothing comes from outside."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ticketlab.spec import InputError

REFERS = {"href", "src", "data-src"}


class Page(HTMLParser):
    """The anchors of a page, and what its elements refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[tuple[str, str]] = []
        """Tag and address."""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        for name, found in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(found or "")
            elif name in REFERS and found is not None:
                self.links.append((tag, found))


def check(site: Path) -> None:
    """InputError for the first link to nothing, and for whatever a page would load from outside."""
    if found := next(faults(site), None):
        raise InputError(f"report: {found}")


def faults(site: Path) -> Iterator[str]:
    """Each broken link of a built site, and each address outside of it that a page loads."""
    site = site.resolve()
    # Among the theme's own files is a template that is no page.
    paths = (p for p in sorted(site.rglob("*.html")) if p.parts[len(site.parts)] != "_static")
    pages = {path: Page(path.read_text()) for path in paths}
    for path, page in pages.items():
        for tag, address in page.links:
            if why := _fault(path, tag, address, pages):
                yield f"{path.relative_to(site)}: {address}: {why}"
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\([\"']?([^)\"']+)", path.read_text()):
            if not address.startswith(("data:", "#")) and _fault(path, "link", address, pages):
                yield f"{path.relative_to(site)}: {address}: is not in the site"


def _fault(path: Path, tag: str, address: str, pages: dict[Path, Page]) -> str | None:
    """What is wrong with one link of the page `path`; a reader's own click may lead outside."""
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto"):
        return None
    if parts.scheme or parts.netloc:
        return None if tag == "a" else "is loaded from outside"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return "no such page or file"
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "no such anchor"
    return None
