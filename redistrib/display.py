"""How objects are shown: the objects ask here, `redistrib.report` registers the answers.

A plan prints itself and shows itself in a notebook, and what draws it must know plans and more. So
that neither imports the other in a circle, a class asks `to_text` and `to_html` of this module,
which know no kind of object; importing `redistrib` registers how each kind is shown.
"""

from __future__ import annotations

from functools import singledispatch
from html import escape
from pathlib import Path


@singledispatch
def to_text(shown: object) -> str:
    """The object as plain text. Raises TypeError for a kind that is not registered."""
    raise TypeError(f"no text is registered for {type(shown).__name__}")


@singledispatch
def to_html(shown: object) -> str:
    """The object as an HTML fragment with its style, for a notebook: no script, nothing remote.

    Raises TypeError for a kind that is not registered.
    """
    raise TypeError(f"no page is registered for {type(shown).__name__}")


def to_page(shown: object) -> str:
    """The object as a standalone HTML page, which follows the reader's light or dark mode."""
    return page(str(shown).split("\n", 1)[0], to_html(shown))


def page(title: str, body: str) -> str:
    """A standalone HTML page around a fragment."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title></head><body>\n{body}\n</body></html>"
    )


def write_page(shown: object, path: str | Path) -> None:
    """Write `to_page` to a file. Raises OSError where it cannot be written."""
    Path(path).write_text(to_page(shown), encoding="utf-8")
