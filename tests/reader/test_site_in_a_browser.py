"""The site of the committed results in Chromium: two widths, two modes, and what axe says."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ticketlab.reader import site

pytestmark = pytest.mark.slow

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = [
    name
    for name, found in {
        "Chromium": CHROMIUM,
        "playwright and axe (pip install -e '.[browser]')": find_spec("playwright")
        and find_spec("axe_playwright_python"),
    }.items()
    if not found
]
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
NOT_LOOKED_AT = ("_static/", "_modules/", "api/ticketlab.", "genindex", "py-modindex")
"""Many pages of one kind each, of which EXAMPLES are looked at; links are checked on all."""
EXAMPLES = ("_modules/ticketlab/pruning/masks.html", "api/ticketlab.pruning.html")
SIZES = {1280: 800, 390: 844}
ASKED_OF_AXE = {(1280, "light"), (390, "dark")}
"""Each width and each mode once: what axe finds depends on one or the other, and it takes long."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; that it is built says that every link and anchor in it exists."""
    target = tmp_path_factory.mktemp("report") / "site"
    site.build(target)
    return target


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; without it or its driver tests are skipped, and fail in `.ci/run`."""
    if MISSING:
        why = f"the site was not looked at with a browser: no {' and no '.join(MISSING)}"
        (pytest.fail if os.environ.get("TICKETLAB_BROWSER") == "required" else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


def chosen(built: Path) -> list[str]:
    """The pages that are looked at."""
    names = [path.relative_to(built).as_posix() for path in sorted(built.rglob("*.html"))]
    return [n for n in names if n in EXAMPLES or not n.startswith(NOT_LOOKED_AT)]


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_pages_fit_can_be_read_by_all_and_ask_nobody_outside(
    built: Path, browser: Any, width: int, mode: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": width, "height": SIZES[width]}
    context = browser.new_context(viewport=size, color_scheme=mode)
    page, axe, asked = context.new_page(), Axe(), set[str]()
    page.on("request", lambda request: asked.add(request.url))
    faults = []
    for name in chosen(built):
        page.goto((built / name).as_uri())
        assert page.evaluate("document.documentElement.dataset.theme") == mode
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            faults.append(f"{name}: {wide} pixels wide")
        if (width, mode) not in ASKED_OF_AXE:
            continue
        for one in axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                faults.append(f"{name}: {one['id']}: {one['nodes'][0]['html'][:200]}")
    context.close()
    assert faults == []
    assert {url for url in asked if not url.startswith(("file:", "data:"))} == set()


VALUES = "cells => cells.map(cell => Number(cell.dataset.value))"


def test_claims_are_filtered_and_sorted(built: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{(built / 'claims.html').as_uri()}?paper=colt")
    rows, own = page.locator("#every-claim tbody tr:visible"), "#every-claim tr[data-paper=colt]"
    assert 0 < rows.count() == page.locator(own).count()
    page.select_option("select[name=verdict]", "not reproduced")
    assert 0 < rows.count() == page.locator(f"{own}[data-verdict='not reproduced']").count()
    page.click("#every-claim th:has-text('ours') button")
    numbers = rows.locator("td[data-of=ours]").evaluate_all(VALUES)
    assert numbers == sorted(numbers) and len(set(numbers)) > 1
    page.fill("input[name=text]", "no such words")
    assert rows.count() == 0
    page.close()


def test_a_claim_has_a_permanent_address(built: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{(built / 'claims.html').as_uri()}#colt-H1")
    assert page.locator("tr:target").get_attribute("id") == "colt-H1"
    page.locator("tr:target a", has_text="cell").click()
    assert page.url.endswith("results/desk/colt.html#colt-H1")
    page.close()


def test_the_search_finds_words_of_notebooks_and_claims(built: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{(built / 'search.html').as_uri()}?q=overlapping")
    page.wait_for_selector("#search-results li a", timeout=30_000)
    assert any(
        "colt" in str(a.get_attribute("href")) for a in page.locator("#search-results li a").all()
    )
    page.close()
