"""The drawings of the docs are what their program draws."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_drawings_are_those_of_the_program() -> None:
    drawings = runpy.run_path(str(DOCS / "drawings.py"))["DRAWINGS"]
    kept = {file.stem: file.read_text(encoding="utf-8") for file in DOCS.glob("images/*.svg")}
    assert kept == {name: draw() for name, draw in drawings.items()}
