"""The drawings of the README and the docs, from the types and plans that they show.

python docs/drawings.py        writes docs/images/*.svg
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import redistrib as rd
from redistrib.report.figures import format_bytes
from redistrib.report.layout import grid

IMAGES = Path(__file__).with_name("images")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px}.cell{fill:#111}"
    "path{stroke:#555;fill:none;stroke-width:1.5}.ours{fill:#2f5fb3}.all{fill:#c0392b}"
    ".bound{stroke:#c0392b;stroke-dasharray:5 3}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.cell{fill:#111}path{stroke:#aaa}"
    ".ours{fill:#6d95dd}.all{fill:#e2796c}}"
)
HUES = (0, 130, 265, 45, 190, 320, 90, 230)
CELL = 26

Shape = list[str]


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(said)}</text>'


def box(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {style}/>'


def arrow(x: float, y: float, to_x: float, said: str) -> Shape:
    head = f"M{to_x - 6:g} {y - 4:g}L{to_x:g} {y:g}L{to_x - 6:g} {y + 4:g}"
    middle = (x + to_x) / 2
    lines = [
        text(middle, y - 8 - 14 * n, part, "small", "middle")
        for n, part in enumerate(reversed(said.split("\n")))
    ]
    return [f'<path d="M{x:g} {y:g}H{to_x:g}{head}"/>', *lines]


def blocks(
    t: rd.ArrayType, x: float, y: float, width: float = 4 * CELL, height: float = 4 * CELL
) -> Shape:
    """The blocks of a type in a square, each with the devices that hold it."""
    drawn = grid(t)
    w, h = width / len(drawn.across.places), height / len(drawn.down.places)
    shapes = []
    for row, cells in enumerate(drawn.cells):
        for column, cell in enumerate(cells):
            if cell is None:
                continue
            colour = f'fill="hsl({HUES[cell.devices[0] % 8]} 60% 80%)" stroke="#fff"'
            left, top = x + column * w, y + row * h
            shapes.append(box(left, top, w, h, colour))
            shapes.append(text(left + w / 2, top + h / 2 + 4, cell.text, "small cell", "middle"))
    return shapes


def drawing(title: str, width: int, height: int, shapes: Iterable[str]) -> str:
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def bars(
    sizes: Sequence[int], most: int, x: float, y: float, height: float, step: float, kind: str
) -> Shape:
    """A bar for each size, on the line y, at the places of the blocks above them."""
    shapes = []
    for n, size in enumerate(sizes):
        tall = height * size / most
        shapes.append(box(x + n * step, y - tall, 2 * CELL, tall, f'class="{kind}"'))
        shapes.append(
            text(x + n * step + CELL, y - tall - 5, format_bytes(size), "small", "middle")
        )
    return shapes


def why() -> str:
    """One change of layout: the plan, and the memory of a device beside gathering the array."""
    mesh = rd.Mesh(x=2, y=4)
    ends = (rd.ArrayType.parse(t, mesh) for t in ("f32[4096{x}, 4096{y}]", "f32[4096{y}, 4096{x}]"))
    plan = rd.plan(*ends, strategy="collectives")
    step, whole = 240, plan.src.size * plan.src.itemsize
    shapes: Shape = []
    for n, t in enumerate(plan.types):
        shapes += blocks(t, 20 + n * step, 40)
        shapes.append(text(20 + n * step, 28, ("source", "between", "target")[n]))
    for n, (made, traffic) in enumerate(zip(plan.steps, plan.traffic, strict=True)):
        said = f"{made.collective}\n{format_bytes(traffic.received_bytes)}"
        shapes += arrow(20 + 4 * CELL + 12 + n * step, 92, 8 + (n + 1) * step, said)
    tiles = [t.tile_bytes for t in plan.types]
    shapes.append(
        text(20, 184, "bytes of the array on one device: this plan, and gathering the whole array")
    )
    shapes += bars(tiles, whole, 20, 320, 100, step, "ours")
    shapes += bars([tiles[0], whole, tiles[-1]], whole, 20 + 2 * CELL + 8, 320, 100, step, "all")
    shapes.append('<path d="M10 320H640"/>')
    title = "From f32[4096{x}, 4096{y}] to f32[4096{y}, 4096{x}] on 8 devices, step by step"
    return drawing(title, 650, 330, shapes)


DRAWINGS: dict[str, Callable[[], str]] = {"why": why}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
