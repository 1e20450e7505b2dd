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


def row_of(types: Sequence[rd.ArrayType], steps: Sequence[str], names: Sequence[str]) -> Shape:
    """Types side by side, with an arrow from each to the next."""
    shapes: Shape = []
    for n, t in enumerate(types):
        shapes += blocks(t, 10 + n * 230, 34)
        shapes.append(text(10 + n * 230, 24, names[n], "small"))
    for n, said in enumerate(steps):
        shapes += arrow(10 + 4 * CELL + 10 + n * 230, 86, (n + 1) * 230, said)
    return shapes


def types_of(axes: str, *texts: str) -> list[rd.ArrayType]:
    mesh = rd.Mesh(axes)
    return [rd.ArrayType.parse(said, mesh) for said in texts]


def ruler(y: float, cuts: Sequence[int], size: int, said: str) -> Shape:
    """A dimension of some size as a line with marks, and what it is on its left."""
    unit = 400 / size
    marks = "".join(f"M{160 + at * unit:g} {y - 7}V{y + 7}" for at in cuts)
    return [text(10, y + 4, said, "small"), f'<path d="M160 {y}H560{marks}"/>']


def stack(sizes: Sequence[tuple[str, int, str]], width: float = 330) -> Shape:
    """Bars below each other: name, size, kind."""
    most = max(size for _, size, _ in sizes)
    shapes: Shape = []
    for n, (name, size, kind) in enumerate(sizes):
        y = 10 + 26 * n
        shapes.append(text(10, y + 13, name, "small"))
        shapes.append(box(220, y, width * size / most, 18, f'class="{kind}"'))
        shapes.append(text(226 + width * size / most, y + 13, str(size), "small"))
    return shapes


def mesh() -> str:
    """Devices of a mesh of two axes: a coordinate on each, and a position."""
    shapes: Shape = []
    for position in range(8):
        x, y = divmod(position, 4)
        colour = f'fill="hsl({HUES[position]} 60% 80%)" stroke="#fff"'
        shapes.append(box(60 + 60 * y, 30 + 40 * x, 60, 40, colour))
        shapes.append(text(90 + 60 * y, 54 + 40 * x, f"{position}", "cell", "middle"))
    shapes += [text(90 + 60 * n, 22, f"y={n}", "small", "middle") for n in range(4)]
    shapes += [text(50, 54 + 40 * n, f"x={n}", "small", "end") for n in range(2)]
    return drawing("A mesh x=2,y=4 and the positions of its devices", 320, 120, shapes)


def layouts() -> str:
    """What factors say: an axis, two axes, a part of an axis, a local factor, a replica."""
    texts = (
        "f32[8{x}, 8{y}]",
        "f32[8{x,y}, 8]",
        "f32[8, 8{y:(1)2}]",
        "f32[8{_2,x}, 8]",
        "f32[8, 8]",
    )
    shapes: Shape = []
    for n, t in enumerate(types_of("x=2,y=4", *texts)):
        shapes += blocks(t, 10 + n * 150, 30)
        shapes.append(text(10 + n * 150, 22, str(t), "small"))
    return drawing("Five layouts of an 8 x 8 array on x=2,y=4", 750, 145, shapes)


def digits() -> str:
    """Where both layouts cut a dimension: the parts are digits."""
    shapes = [
        *ruler(20, (0, 4, 8), 8, "y owns halves"),
        *ruler(55, (0, 2, 4, 6, 8), 8, "x owns quarters"),
        *ruler(90, (0, 2, 4, 6, 8), 8, "digits: 2, 2, and 2 left"),
    ]
    return drawing("The cuts of two layouts of one dimension, and the digits", 570, 110, shapes)


def partial() -> str:
    """A partial sum: each device holds an addend of its block."""
    src, dst = types_of("x=2,y=2", "f32[8{x}, 8] sum{y}", "f32[8{x}, 8{y}]")
    shapes = row_of([src, dst], ["reduce_scatter"], ["addends of each half", "sums"])
    return drawing(f"From {src} to {dst}", 350, 150, shapes)


def memory() -> str:
    """Peak and live memory of a plan."""
    src, dst = types_of("x=2,y=4", "f32[4096{x}, 4096{y}]", "f32[4096{y}, 4096{x}]")
    plan = rd.plan(src, dst, strategy="collectives")
    sizes = [
        ("source tile", src.tile_bytes >> 20, "ours"),
        ("target tile", dst.tile_bytes >> 20, "ours"),
    ]
    sizes += [
        ("peak tile", plan.peak_tile_bytes >> 20, "ours"),
        ("live: source, input, output", plan.live_bytes >> 20, "all"),
    ]
    return drawing("Tiles, peak and live memory of a plan, in MiB", 620, 120, stack(sizes))


def phases() -> str:
    """The three phases, by the size of the tile."""
    plan = rd.plan(*types_of("x=2,y=2", "f32[16{x}]", "f32[16{_2,y}]"), strategy="collectives")
    sizes = [
        (said, t.tile_size, "ours")
        for said, t in zip(("source", "after the slices: t", "target"), plan.types, strict=True)
    ]
    return drawing("Tile sizes in the three phases of a plan", 600, 95, stack(sizes))


def canonical() -> str:
    """Theorem 1: two texts of one meaning."""
    one, two = types_of("x=4", "f32[16{_2,_2,x:(1)2,x:(2)2}, 4]", "f32[16{_4,x}, 4]")
    assert one == two
    shapes = [*blocks(one, 10, 30), *blocks(two, 230, 30), text(165, 86, "=", "", "middle")]
    shapes += [text(10, 22, "16{_2,_2,x:(1)2,x:(2)2}", "small"), text(230, 22, "16{_4,x}", "small")]
    return drawing("Two texts of one layout", 350, 145, shapes)


def rules() -> str:
    """Theorem 2: what each collective does to the blocks of two devices."""
    examples = (
        ("f32[4, 4]", "dynamic_slice", "f32[4{x}, 4]"),
        ("f32[4{x}, 4]", "all_gather", "f32[4, 4]"),
        ("f32[4{x}, 4]", "all_to_all", "f32[4, 4{x}]"),
        ("f32[4, 4] sum{x}", "reduce_scatter", "f32[4{x}, 4]"),
        ("f32[4, 4] sum{x}", "all_reduce", "f32[4, 4]"),
    )
    shapes: Shape = []
    for n, (before, name, after) in enumerate(examples):
        x, y = 10 + (n % 2) * 330, 24 + (n // 2) * 100
        for at, t in zip((x, x + 210), types_of("x=2", before, after), strict=True):
            shapes += blocks(t, at, y, 2.5 * CELL, 2.5 * CELL)
            shapes.append(text(at, y - 6, str(t), "small"))
        shapes += arrow(x + 2.5 * CELL + 12, y + 42, x + 200, name)
    return drawing("Each collective on two devices", 650, 300, shapes)


def bound() -> str:
    """Theorem 4: the target tile of the worst device, less what it holds already."""
    mesh = rd.Mesh(x=2, y=4)
    shapes: Shape = []
    for n, (src, dst) in enumerate(
        (("f32[8{x}, 8{y}]", "f32[8{x}, 8]"), ("f32[8{x}, 8{y}]", "f32[8{y}, 8{x}]"))
    ):
        ends = (rd.ArrayType.parse(said, mesh) for said in (src, dst))
        plan = rd.plan(*ends, strategy="direct")
        tile, least = plan.dst.tile_size, plan.lower_bound_bytes // 4
        sizes = [(f"{dst}: tile", tile, "ours"), ("must be received", least, "all")]
        shapes += [f'<g transform="translate(0 {60 * n})">', *stack(sizes, 300), "</g>"]
    return drawing(
        "The target tile, and what of it the worst device must receive", 600, 125, shapes
    )


def addends() -> str:
    """Theorem 4a: addends of one element, brought together and spread."""
    spots = {
        "device 0": (60, 30),
        "device 1": (60, 90),
        "device 2": (260, 30),
        "device 3": (260, 90),
    }
    shapes: Shape = [text(x, y + 4, name, "small", "middle") for name, (x, y) in spots.items()]
    for (x, y), (to_x, to_y) in (
        ((60, 80), (60, 44)),
        ((95, 30), (222, 30)),
        ((95, 36), (222, 84)),
    ):
        shapes.append(f'<path d="M{x} {y}L{to_x} {to_y}"/>')
    shapes.append(
        text(10, 125, "K=2 addends join by one receipt; r=3 copies need two more", "small")
    )
    return drawing(
        "Receipts of one element join its addends and reach its copies", 360, 135, shapes
    )


def peak() -> str:
    """Theorem 5: gathers last keep the smaller end; gathers first do not."""
    plan = rd.plan(*types_of("x=2,y=2", "f32[16{x}]", "f32[16{_2,y}]"), strategy="collectives")
    sizes = [(f"slices first: {t}", t.tile_size, "ours") for t in plan.types]
    sizes.append(("gathers first: f32[16]", 16, "all"))
    return drawing("Tile sizes with slices first, and with a gather first", 600, 120, stack(sizes))


def chains() -> str:
    """Theorem 6: what moves as a graph of paths and cycles."""
    shapes: Shape = [
        text(10, 20, "a cycle: one permute", "small"),
        text(230, 20, "a path: one all_to_all", "small"),
    ]
    for x, y, said in (
        (40, 55, "dim 0"),
        (150, 55, "dim 1"),
        (260, 55, "dim 0"),
        (400, 55, "dim 1, local"),
    ):
        shapes.append(text(x, y + 4, said, "small", "middle"))
    shapes.append('<path d="M62 48Q95 26 128 48M128 62Q95 86 62 62"/>')
    shapes += [text(95, 34, "x", "small", "middle"), text(95, 90, "y", "small", "middle")]
    shapes += arrow(284, 55, 356, "x")
    return drawing("A cycle and a path of owners that move", 460, 100, shapes)


def volume() -> str:
    """Theorem 7: what is received, beside the bound and twice the bound."""
    ends = types_of("x=2,y=4", "f32[32{x}, 32{y}]", "f32[32{y}, 32{x}]")
    by = {name: rd.plan(*ends, strategy=name) for name in ("direct", "collectives")}
    least = by["direct"].lower_bound_bytes // 4
    sizes = [("lower bound", least, "ours")]
    sizes += [(name, plan.received_bytes // 4, "ours") for name, plan in by.items()]
    return drawing(
        "Elements received", 600, 120, stack([*sizes, ("twice the bound", 2 * least, "all")])
    )


def rewriting() -> str:
    """Theorem 8: a gather and a slice change places."""
    before = ("source", 8, "ours"), ("gather, then slice", 16, "all"), ("target", 8, "ours")
    after = ("source", 8, "ours"), ("slice, then gather", 4, "ours"), ("target", 8, "ours")
    shapes = [*stack(before, 300), '<g transform="translate(0 95)">', *stack(after, 150), "</g>"]
    return drawing("The tile between, before and after a rewriting", 600, 185, shapes)


def transposition() -> str:
    """Theorem 9: a plan and its transpose, step by step in reverse."""
    rows, whole, added = types_of("x=2", "f32[8{x}, 8]", "f32[8, 8]", "f32[8, 8] sum{x}")
    shapes = row_of([rows, whole], ["all_gather"], [str(rows), str(whole)])
    moved = row_of([added, rows], ["reduce_scatter"], [str(added), str(rows)])
    shapes += ['<g transform="translate(370 0)">', *moved, "</g>"]
    return drawing("An all_gather and its transpose, a reduce_scatter", 720, 150, shapes)


DRAWINGS: dict[str, Callable[[], str]] = {
    draw.__name__: draw
    for draw in (
        *(why, mesh, layouts, digits, partial, memory, phases),
        *(canonical, rules, bound, addends, peak, chains, volume, rewriting, transposition),
    )
}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
