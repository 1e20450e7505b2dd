"""Views of a plan: plain text, a terminal table, a standalone HTML page, and pictures of types.

A report only reads plans; no planning depends on it. All sizes are bytes per device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import product
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from redistrib.errors import LayoutError
from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.paper.derivation import derivation_lines, paper_steps
from redistrib.types.array_type import ArrayType
from redistrib.types.notation import format_factor

Detail = Literal["concise", "normal", "full"]
"""One line; header and steps; also the type after each step and who holds what at both ends."""

COLUMNS = ("collective", "axes", "groups", "local shape", "received", "live", "time")
RIGHT_ALIGNED = ("received", "live", "time")

# Beyond these a picture no longer fits a page.
MAX_DRAWN_DEVICES = 64
MAX_DRAWN_BLOCKS = 256


# --- figures as text ---------------------------------------------------------------------------


def format_bytes(size: int) -> str:
    """A size in the largest binary unit that it reaches, to four digits.

    >>> format_bytes(512), format_bytes(12 * 2**20), format_bytes(1500)
    ('512 B', '12 MiB', '1.465 KiB')
    """
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"


def format_seconds(seconds: float) -> str:
    """A time in s, ms, us or ns, to three digits.

    >>> format_seconds(0.0123), format_seconds(2e-6), format_seconds(0)
    ('12.3 ms', '2 us', '0 s')
    """
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * scale >= 1 or seconds == 0:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def format_shape(shape: tuple[int, ...]) -> str:
    """A shape as `2048x1024`; `scalar` for rank 0."""
    return "x".join(map(str, shape)) or "scalar"


def format_positions(positions: list[int]) -> str:
    """Ascending numbers, runs of three or more shortened.

    >>> format_positions([0, 1, 2, 3, 6, 7])
    '0-3,6,7'
    """
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]
    return ",".join(part for run in parts for part in run)


# --- a plan as rows ----------------------------------------------------------------------------


def header(plan: Plan) -> list[tuple[str, str]]:
    """What is said of a whole plan, as (name, value)."""
    src, dst = plan.src, plan.dst
    meshes = [src.mesh] if src.mesh == dst.mesh else [src.mesh, dst.mesh]
    plural = "" if plan.num_collectives == 1 else "s"
    lines = [
        ("mesh", " -> ".join(str(mesh) or "one device" for mesh in meshes)),
        ("strategy", f"{plan.strategy}, {plan.num_collectives} collective{plural}"),
        (
            "peak tile",
            f"{format_bytes(plan.peak_tile_bytes)} (source {format_bytes(src.tile_bytes)}, "
            f"target {format_bytes(dst.tile_bytes)}); live {format_bytes(plan.live_bytes)}",
        ),
        (
            "received",
            f"{format_bytes(plan.received_bytes)} (lower bound "
            f"{format_bytes(plan.lower_bound_bytes)}{_ratio(plan)}); "
            f"sent {format_bytes(plan.sent_bytes)}",
        ),
        ("time", f"{format_seconds(plan.seconds)} estimated, profile {plan.profile.name}"),
    ]
    if plan.steps and not src.partial and not dst.partial:
        whole = src.size * src.itemsize
        lines.append(
            (
                "gather all",
                f"would receive {format_bytes(whole - src.tile_bytes)} "
                f"and peak at {format_bytes(whole)}",
            )
        )
    return lines


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """One row of texts per step, in the order of COLUMNS; times under the profile of the plan."""
    found: list[tuple[str, ...]] = []
    for at, (step, before, after) in enumerate(
        zip(plan.steps, plan.types, plan.types[1:], strict=False)
    ):
        mesh = after.mesh
        group = prod(digit.size for digit in step.axes)
        # The axes of an exchange are the owners afterwards; who talks to whom is up to its tables.
        groups = "" if isinstance(step, Exchange) else f"{mesh.num_devices // group} of {group}"
        found.append(
            (
                step.collective,
                ",".join(format_factor(digit, mesh) for digit in step.axes),
                groups,
                f"{format_shape(before.tile_shape)} -> {format_shape(after.tile_shape)}",
                format_bytes(plan.traffic[at].received_bytes),
                format_bytes(plan.live_bytes_per_step[at]),
                format_seconds(plan.seconds_per_step[at]),
            )
        )
    return found


def _ratio(plan: Plan) -> str:
    if not plan.lower_bound_bytes:
        return ""
    return f", {plan.received_bytes / plan.lower_bound_bytes:.2f}x"


# --- plain text and terminal -------------------------------------------------------------------


def to_text(plan: Plan, detail: Detail = "normal") -> str:
    """A plan as plain text."""
    title = f"{plan.src} -> {plan.dst}"
    if detail == "concise":
        steps = ", ".join(step.collective for step in plan.steps) or "nothing to do"
        return (
            f"{title}: {steps}; received {format_bytes(plan.received_bytes)}, "
            f"peak tile {format_bytes(plan.peak_tile_bytes)}"
        )
    width = max(len(name) for name, _ in header(plan))
    lines = [title, *(f"  {name:{width}}  {value}" for name, value in header(plan)), ""]
    lines += _table(rows(plan)) if plan.steps else ["nothing to do"]
    if derived := derivation(plan):
        lines += ["", *derived]
    if detail == "full":
        lines += ["", "types"]
        lines += [f"  {at or 'source':>6}  {t}" for at, t in enumerate(plan.types)]
        for t in (plan.src, plan.dst) if plan.steps else (plan.src,):
            lines += ["", picture(t)]
    return "\n".join(lines)


def print_rich(plan: Plan) -> None:
    """Print a plan on a terminal, with colour. Needs rich."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(f"{plan.src} -> {plan.dst}", style="bold"))
    grid = Table.grid(padding=(0, 2))
    for name, value in header(plan):
        grid.add_row(Text(f"  {name}", style="dim"), Text(value))
    console.print(grid)
    if not plan.steps:
        console.print("nothing to do")
        return
    table = Table()
    for name in ("", *COLUMNS):
        table.add_column(name, justify="right" if name in RIGHT_ALIGNED else "left")
    for number, row in enumerate(rows(plan), start=1):
        table.add_row(*(Text(cell) for cell in (str(number), *row)))
    console.print(table)
    for line in derivation(plan):
        console.print(Text(line), soft_wrap=True)


def derivation(plan: Plan) -> list[str]:
    """How strategy `paper` came to a plan, as lines; none for a plan that is not its own."""
    if plan.strategy != "paper":
        return []
    try:
        if tuple(paper_steps(plan.src, plan.dst)) != plan.steps:
            return []
        return derivation_lines(plan.src, plan.dst)
    except LayoutError:  # the transpose of such a plan has partial axes
        return []


def _table(body: list[tuple[str, ...]]) -> list[str]:
    """Aligned lines: a head, then numbered rows."""
    numbered = [("", *COLUMNS), *((str(at), *row) for at, row in enumerate(body, start=1))]
    widths = [max(map(len, column)) for column in zip(*numbered, strict=True)]
    right = [name in RIGHT_ALIGNED for name in ("", *COLUMNS)]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in numbered
    ]


# --- which device holds what -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sheet:
    """A two-dimensional slice of a type: labels of index ranges, and the devices per block."""

    title: str
    down: list[str]
    across: list[str]
    devices: list[list[list[int]]]


def sheets(t: ArrayType) -> list[Sheet] | None:
    """The blocks of a type, by slices of at most two dimensions; None where there are too many.

    A block is the largest box that no device holds only a part of. Dimensions in one block are not
    drawn; of the others the last two are, and the rest are enumerated.
    """
    # What lies within a block does not matter: a type with one element per block says who holds it.
    coarse_shape = tuple(prod(factor.size for factor in factors) for factors in t.dims)
    if t.mesh.num_devices > MAX_DRAWN_DEVICES or prod(coarse_shape) > MAX_DRAWN_BLOCKS:
        return None
    coarse = ArrayType(t.mesh, t.dtype, coarse_shape, t.dims)
    holders: dict[tuple[int, ...], list[int]] = {
        block: [] for block in product(*map(range, coarse_shape))
    }
    ids = t.mesh.ids
    for position, device in enumerate(ids):
        for block in product(*(axis.tolist() for axis in coarse.tile(position))):
            holders[block].append(device)

    split = [dim for dim, count in enumerate(coarse_shape) if count > 1]
    drawn = split[-2:]
    ranges = [
        [f"{at * (n // count)}:{(at + 1) * (n // count)}" for at in range(count)]
        for n, count in zip(t.shape, coarse_shape, strict=True)
    ]
    rest = [range(1) if dim in drawn else range(n) for dim, n in enumerate(coarse_shape)]
    found = []
    for base in product(*rest):
        title = ", ".join(
            ":" if dim in drawn or coarse_shape[dim] == 1 else ranges[dim][at]
            for dim, at in enumerate(base)
        )
        grid = np.empty([coarse_shape[dim] for dim in drawn], dtype=object)
        for block in np.ndindex(*grid.shape):
            whole = list(base)
            for dim, at in zip(drawn, block, strict=True):
                whole[dim] = at
            grid[block] = sorted(holders[tuple(whole)])
        labels = [ranges[dim] for dim in drawn]
        # One drawn dimension runs across; none is a single block.
        labels = [[""]] * (2 - len(labels)) + labels
        cells = grid.reshape([len(label) for label in labels])
        found.append(Sheet(f"[{title}]", labels[0], labels[1], [list(row) for row in cells]))
    return found


def picture(t: ArrayType) -> str:
    """Which devices hold which block, as text: last drawn dimension across, the one before down.

    >>> from redistrib.types.mesh import Mesh
    >>> print(picture(ArrayType.parse("f32[8{x}, 6{y}]", Mesh(x=2, y=2))))
    f32[8{x}, 6{y}]
           0:3  3:6
      0:4    0    1
      4:8    2    3
    """
    drawn = sheets(t)
    if drawn is None:
        return f"{t}\n  too many devices or blocks to draw"
    lines = [str(t)]
    for sheet in drawn:
        if len(drawn) > 1:
            lines.append(f"  {sheet.title}")
        table = [
            ["", *sheet.across],
            *(
                [label, *map(format_positions, row)]
                for label, row in zip(sheet.down, sheet.devices, strict=True)
            ),
        ]
        columns = [column for column in zip(*table, strict=True) if any(column)]
        widths = [max(map(len, column)) for column in columns]
        lines += [
            "  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in zip(*columns, strict=True)
            if any(row)
        ]
    if t.partial:
        lines.append(f"  each block is a partial {t.reduction} on its devices")
    return "\n".join(lines)


# --- HTML --------------------------------------------------------------------------------------

STYLE = """
.redistrib { font: 14px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 1rem auto; }
.redistrib h1 { font-size: 1.1rem; } .redistrib h2 { font-size: 1rem; margin-bottom: .3rem; }
.redistrib code { font-family: ui-monospace, monospace; }
.redistrib table { border-collapse: collapse; margin: .3rem 1rem .6rem 0; }
.redistrib th, .redistrib td { padding: .15rem .6rem; text-align: left; }
.redistrib th { font-weight: 600; } .redistrib .right { text-align: right; }
.redistrib .steps td, .redistrib .steps th { border-bottom: 1px solid #8884; }
.redistrib .sheet { display: inline-table; font-size: 12px; }
.redistrib .sheet td { border: 1px solid #8888; text-align: center; color: #000; }
.redistrib .sheet th { font-weight: 400; opacity: .7; }
""".strip()


def to_html(plan: Plan) -> str:
    """A plan as an HTML fragment, for a notebook or a page; no script, nothing remote."""
    title = escape(f"{plan.src} -> {plan.dst}")
    head = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in header(plan)
    )
    parts = [
        f"<style>{STYLE}</style>",
        f'<div class="redistrib"><h1><code>{title}</code></h1><table>{head}</table>',
        _html_steps(rows(plan)) if plan.steps else "<p>Nothing to do.</p>",
    ]
    for at, t in enumerate(plan.types):
        name = f"after step {at}: {plan.steps[at - 1].collective}" if at else "source"
        parts.append(f"<h2>{escape(name)}</h2><div><code>{escape(str(t))}</code></div>")
        parts.extend(_html_sheets(t))
    return "\n".join([*parts, "</div>"])


def write_html(plan: Plan, path: str | Path) -> None:
    """Write a plan as a standalone HTML page. Raises OSError where the file cannot be written."""
    Path(path).write_text(to_page(plan), encoding="utf-8")


def to_page(plan: Plan) -> str:
    """A plan as a standalone HTML page."""
    title = escape(f"{plan.src} -> {plan.dst}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title></head><body>\n{to_html(plan)}\n</body></html>"
    )


def _html_steps(body: list[tuple[str, ...]]) -> str:
    def cells(tag: str, row: tuple[str, ...]) -> Iterator[str]:
        for name, cell in zip(("", *COLUMNS), row, strict=True):
            flush = ' class="right"' if name in RIGHT_ALIGNED else ""
            yield f"<{tag}{flush}>{escape(cell)}</{tag}>"

    lines = [f"<tr>{''.join(cells('th', ('', *COLUMNS)))}</tr>"]
    lines += [f"<tr>{''.join(cells('td', (str(at), *row)))}</tr>" for at, row in enumerate(body, 1)]
    return f'<table class="steps">{"".join(lines)}</table>'


def _html_sheets(t: ArrayType) -> Iterator[str]:
    """One small table per sheet; a block has the colour of the first device that holds it."""
    drawn = sheets(t)
    if drawn is None:
        yield "<p>Too many devices or blocks to draw.</p>"
        return
    for sheet in drawn:
        head = "".join(f"<th>{escape(label)}</th>" for label in sheet.across)
        lines = [f"<tr><th>{escape(sheet.title)}</th>{head}</tr>"]
        for label, row in zip(sheet.down, sheet.devices, strict=True):
            # Steps of the golden angle: neighbours in device order get unlike hues.
            cells = "".join(
                f'<td style="background:hsl({devices[0] * 137.5 % 360:.0f} 60% 80%)">'
                f"{format_positions(devices)}</td>"
                for devices in row
            )
            lines.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
        yield f'<table class="sheet">{"".join(lines)}</table>'
    if t.partial:
        yield f"<div>Each block is a partial {escape(str(t.reduction))} on its devices.</div>"
