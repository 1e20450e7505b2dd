"""The pages of the docs: all are in the site, their links lead somewhere, drawings are as drawn."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_site_once() -> None:
    listed = [
        line
        for tree in TOCTREE.findall((DOCS / "index.md").read_text(encoding="utf-8"))
        for line in tree.splitlines()
        if line and not line.startswith(":")
    ]
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_links_lead_to_files_and_headings() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target, _, anchor = link.partition("#")
            file = page.parent / target if target else page
            if "://" not in link:
                assert file.exists(), (page.name, link)
                assert not anchor or anchor in anchors(file), (page.name, link)


def test_the_drawings_are_those_of_the_program() -> None:
    drawings = runpy.run_path(str(DOCS / "drawings.py"))["DRAWINGS"]
    kept = {file.stem: file.read_text(encoding="utf-8") for file in DOCS.glob("images/*.svg")}
    assert kept == {name: draw() for name, draw in drawings.items()}
