"""Settings of the documentation site; `ticketlab report` stages its sources and builds them."""

import inspect
import re
from typing import Any

project = "ticketlab"
author = "the ticketlab authors"
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["generated"]

# Notebooks are shown as `dvc repro` executed them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # `os.environ`, not the variables of whoever builds the site
viewcode_follow_imported_members = False

html_theme = "pydata_sphinx_theme"
html_title = "ticketlab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["claims.js"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "claims": []}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": {"**": ["page-toc"], "claims": []},
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def is_foreign(app: Any, what: str, name: str, found: Any, *_: Any) -> bool | None:
    """Whether a member is a function or class of another package, whose docstring is not ours."""
    is_code = inspect.isroutine(found) or inspect.isclass(found)
    module = getattr(found, "__module__", None) or ""
    return True if is_code and module.partition(".")[0] != "ticketlab" else None


ANNOTATED = re.compile(r"(?:~?[\w.]+\.)?Annotated\[(.*?), <[^<>]* object at 0x[0-9a-f]+>\]")


def without_addresses(
    app: Any, what: str, name: str, found: Any, options: Any, signature: str | None, result: Any
) -> tuple[str | None, Any]:
    """The types of a command's arguments without objects, whose addresses differ in each build."""
    return ANNOTATED.sub(r"\1", signature) if signature else signature, result


def setup(app: Any) -> None:
    """Leave foreign members and addresses out of the API reference."""
    app.connect("autodoc-skip-member", is_foreign)
    app.connect("autodoc-process-signature", without_addresses)
