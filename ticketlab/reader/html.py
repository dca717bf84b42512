"""The project's HTML: templates beside this file, and its words for values and verdicts."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates(**filters: Callable[..., Any]) -> Environment:
    """The templates with `value`, `slug` and further filters; all text is escaped."""
    env = Environment(
        loader=PackageLoader("ticketlab.reader"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"value": value, "slug": slug, **filters}
    return env


def value(found: Any) -> str:
    """A metric as text: intervals with their bounds, numbers to 4 digits, nothing as a dash."""
    if found is None:
        return "–"
    if isinstance(found, float):
        return f"{found:.4g}"
    return str(found)


def slug(words: str) -> str:
    """A verdict as a CSS class."""
    return words.replace(" ", "-")
