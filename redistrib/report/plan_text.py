"""A plan as plain text and as a terminal table. All sizes are bytes per device."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Literal

from redistrib.display import to_text
from redistrib.errors import LayoutError
from redistrib.report.figures import format_bytes, format_seconds, format_shape
from redistrib.report.layout import picture
from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.paper.derivation import derivation_lines, paper_steps
from redistrib.types.notation import format_factor

Detail = Literal["concise", "normal", "full"]
"""One line; header and steps; also the type after each step and who holds what at both ends."""

COLUMNS = ("collective", "axes", "groups", "tile", "received", "live", "time")
RIGHT_ALIGNED = ("received", "live", "time")
WIDTH = 80
"""Of plain text, which does not know where it will be read."""


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
    if plan.padded_shape is not None:
        more = prod(plan.padded_shape) / max(src.size, 1) - 1
        lines.append(("padded", f"to {format_shape(plan.padded_shape)}, {more:.2%} more"))
    if plan.steps and not src.partial and not dst.partial:
        total = src.size * src.itemsize
        lines.append(
            (
                "gather all",
                f"would receive {format_bytes(total - src.tile_bytes)} "
                f"and peak at {format_bytes(total)}",
            )
        )
    return lines


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """The source, then one row of texts per step, in the order of COLUMNS, with the tile after it.

    Times are under the profile of the plan.
    """
    start = format_shape(plan.src.tile_shape), "", format_bytes(plan.src.tile_bytes), ""
    table: list[tuple[str, ...]] = [("source", "", "", *start)]
    for index, (step, after) in enumerate(zip(plan.steps, plan.types[1:], strict=True)):
        mesh = after.mesh
        group = prod(digit.size for digit in step.axes)
        # The axes of an exchange are the owners afterwards; who talks to whom is up to its tables.
        groups = "" if isinstance(step, Exchange) else f"{mesh.num_devices // group} of {group}"
        table.append(
            (
                step.collective,
                ",".join(format_factor(digit, mesh) for digit in step.axes),
                groups,
                format_shape(after.tile_shape),
                format_bytes(plan.traffic[index].received_bytes),
                format_bytes(plan.live_bytes_per_step[index]),
                format_seconds(plan.seconds_per_step[index]),
            )
        )
    return table


def _ratio(plan: Plan) -> str:
    if not plan.lower_bound_bytes:
        return ""
    return f", {plan.received_bytes / plan.lower_bound_bytes:.2f}x"


@to_text.register
def plan_text(plan: Plan, detail: Detail = "normal") -> str:
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
    table = _table(rows(plan)) if plan.steps else ["nothing to do"]
    lines += table if max(map(len, table)) <= WIDTH else _stacked(rows(plan))
    if derived := derivation(plan):
        lines += ["", *derived]
    if detail == "full":
        lines += ["", "types"]
        lines += [f"  {index or 'source':>6}  {t}" for index, t in enumerate(plan.types)]
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
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("", *COLUMNS):
        table.add_column(name, justify="right" if name in RIGHT_ALIGNED else "left", no_wrap=True)
    for number, row in enumerate(rows(plan)):
        table.add_row(*(Text(cell) for cell in (str(number), *row)))
    room = console.options.update(width=10 * console.width)
    if console.measure(table, options=room).minimum <= console.width:
        console.print(table)
    else:
        for line in _stacked(rows(plan)):
            console.print(Text(line))
    for line in derivation(plan):
        console.print(Text(line), soft_wrap=True)


def _stacked(body: list[tuple[str, ...]]) -> Iterator[str]:
    """Each step in lines, where the table is too wide."""
    for number, row in enumerate(body):
        cells = dict(zip(COLUMNS, row, strict=True))
        yield f"{number} {cells.pop('collective')}"
        yield from (f"    {name:11}  {cell}" for name, cell in cells.items() if cell)


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
    numbered = [("", *COLUMNS), *((str(index), *row) for index, row in enumerate(body))]
    widths = [max(map(len, column)) for column in zip(*numbered, strict=True)]
    right = [name in RIGHT_ALIGNED for name in ("", *COLUMNS)]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in numbered
    ]
