"""Parts of the pages: tables, grids of blocks, arrows between devices, bars, and a stepper.

A page has no script. Its stepper is a group of radio buttons, each with a panel after it, so that
the arrow keys choose a step and a browser, a notebook and a printer all show it.

>>> element("b", "1 < 2", title='"a"')
'<b title="&quot;a&quot;">1 &lt; 2</b>'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby

from redistrib.report.figures import format_bytes
from redistrib.report.layout import Cell, Edge, grid, partial_note
from redistrib.report.movement import Movement
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Local

ROW, WIDTH = 26, 260
"""Pixels of a line of devices in a drawing, and of the drawing."""


class Markup(str):
    """HTML that is not escaped again."""

    __slots__ = ()


def element(name: str, /, *body: str, **attributes: str | int | None) -> Markup:
    """An element around texts, which are escaped, and Markup, which is not.

    Attributes lose a trailing `_`; those that are None are left out.
    """
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(part if isinstance(part, Markup) else escape(part) for part in body)
    return Markup(f"<{name}{listed}>{inside}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Several pieces of Markup as one."""
    return Markup("".join(parts))


@cache
def _style() -> str:
    return files("redistrib.report").joinpath("style.css").read_text(encoding="utf-8")


def fragment(*parts: str) -> str:
    """The parts with the style that they need, once."""
    return join((element("style", Markup(_style())), element("div", *parts, class_="redistrib")))


def figures(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values, one a line."""
    return element("table", *(_line(element("th", n), element("td", v)) for n, v in pairs))


def _line(*cells: str) -> Markup:
    return element("tr", *cells)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> Markup:
    """A table that scrolls by itself where it is wider than the page; `right` heads are flush."""
    sides = ["right" if head in set(right) else None for head in heads]
    lines = [
        _line(*(element(tag, cell, class_=side) for cell, side in zip(row, sides, strict=True)))
        for tag, body in (("th", [heads]), ("td", rows))
        for row in body
    ]
    return wide(element("table", *lines, class_="lined"))


def wide(*parts: str) -> Markup:
    """A box that scrolls sideways by itself, also by keyboard."""
    return element("div", *parts, class_="wide", tabindex=0)


def details(summary: str, *parts: str) -> Markup:
    """What is shown on request."""
    return element("details", element("summary", summary), *parts)


def stepper(name: str, panels: Sequence[tuple[str, str]]) -> Markup:
    """Panels of which one is shown, by their titles."""
    parts = []
    for number, (title, body) in enumerate(panels):
        checked = "checked" if number == 0 else None
        button = element("input", type="radio", name="step", checked=checked)
        # An input has no end tag.
        parts.append(element("label", Markup(button.removesuffix("</input>")), title))
        parts.append(element("section", body))
    return element("form", *parts, class_="stepper", aria_label=name)


# --- which device holds what -------------------------------------------------------------------


def layout(t: ArrayType, title: str) -> Markup:
    """The blocks of a type, with the factors that split it as brackets along the edges."""
    drawn = grid(t)
    corner = len(drawn.down.factors) + 1
    lines = []
    for level in range(len(drawn.across.factors)):
        spans = (
            element("th", text, colspan=span, class_="across")
            for text, span in _spans(drawn.across, level)
        )
        lines.append(_line(element("th", colspan=corner), *spans))
    heads = (_range(place.indices) for place in drawn.across.places)
    dims = (
        f"dimension {', '.join(map(str, edge.dims))} {arrow}"
        for edge, arrow in ((drawn.down, "↓"), (drawn.across, "→"))
        if edge.dims
    )
    lines.append(_line(element("th", " ".join(dims), colspan=corner), *heads))
    levels = [dict(_starts(drawn.down, n)) for n in range(len(drawn.down.factors))]
    for number, (place, row) in enumerate(zip(drawn.down.places, drawn.cells, strict=True)):
        brackets = (
            element("th", level[number][0], rowspan=level[number][1], class_="down")
            for level in levels
            if number in level
        )
        cells = (_cell(cell) for cell in row)
        lines.append(_line(*brackets, _range(place.indices), *cells))
    notes = [element("figcaption", title, " ", element("code", str(t)))]
    if t.partial:
        notes.append(element("div", partial_note(t), class_="note"))
    return element("figure", *notes, wide(element("table", *lines, class_="grid")))


def _range(indices: str) -> Markup:
    return element("th", indices, class_="indices")


def _cell(cell: Cell | None) -> Markup:
    if cell is None:
        return element("td", "...", class_="gap")
    first = cell.devices[0] if cell.devices else 0
    listed = ", ".join(map(str, cell.devices[:32])) + (" ..." if len(cell.devices) > 32 else "")
    hue = f"background:hsl({hue_of(first)} 60% 80%)"
    return element("td", cell.text, title=f"devices {listed}" if listed else None, style=hue)


def hue_of(device: int) -> str:
    """A hue for a device: steps of the golden angle, so that neighbours get unlike ones."""
    return f"{device * 137.5 % 360:.0f}"


def _starts(edge: Edge, level: int) -> Iterator[tuple[int, tuple[str, int]]]:
    """The brackets of one factor: where each starts, what it says, how many places it spans."""
    start = 0
    for text, span in _spans(edge, level):
        yield start, (text, span)
        start += span


def _spans(edge: Edge, level: int) -> Iterator[tuple[str, int]]:
    factor, label = edge.factors[level], edge.labels[level]

    def text(values: tuple[int, ...]) -> str:
        if len(values) <= level:
            return "..."
        value = values[level]
        return f"{value + 1} of {factor.size}" if isinstance(factor, Local) else f"{label}={value}"

    for values, same in groupby(place.values[: level + 1] for place in edge.places):
        yield text(values), len(list(same))


# --- who sends what to whom --------------------------------------------------------------------


def arrows(moved: Movement) -> Markup:
    """Lines from senders on the left to receivers on the right, as thick as what they carry."""
    if not moved.flows:
        return Markup()
    left, right = (sorted({ends[side] for ends in moved.flows}) for side in (0, 1))
    place = [{device: 36 + ROW * row for row, device in enumerate(side)} for side in (left, right)]
    most, least = max(moved.flows.values()), min(moved.flows.values())
    thick = min(2.5, 16 / len(moved.flows))
    lines = [
        element("text", "sends", x=2, y=14),
        element("text", "receives", x=WIDTH - 52, y=14),
    ]
    for (sender, receiver), size in moved.flows.items():
        a, b = place[0][sender], place[1][receiver]
        path = f"M48 {a}C{WIDTH / 2} {a} {WIDTH / 2} {b} {WIDTH - 48} {b}"
        colour = f"stroke:hsl({hue_of(sender)} 55% 50%);stroke-width:{thick * size / most + 1:.1f}"
        title = element("title", f"{sender} to {receiver}: {format_bytes(size)}")
        lines.append(element("path", title, class_="flow", d=path, style=colour))
    for side, x, anchor in ((place[0], 42, "end"), (place[1], WIDTH - 42, "start")):
        lines += [
            element("text", f"{device}", x=x, y=y + 4, text_anchor=anchor)
            for device, y in side.items()
        ]
    labels = [f"{a} -> {b}: {format_bytes(size)}" for (a, b), size in moved.flows.items()]
    amount = (
        format_bytes(most) if most == least else f"{format_bytes(least)} to {format_bytes(most)}"
    )
    height = 36 + ROW * max(len(left), len(right))
    picture = element(
        "svg",
        *lines,
        role="img",
        aria_label="; ".join(labels),
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
    )
    return element(
        "figure",
        element("figcaption", f"{moved.shown}: a line is {amount}."),
        picture,
        details("as text", element("pre", "\n".join(labels))),
    )


# --- memory ------------------------------------------------------------------------------------


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, int]]]]) -> Markup:
    """A bar a row, of segments (kind, bytes) to one scale; kinds are classes of the style."""
    most = max((sum(size for _, size in segments) for _, segments in rows), default=0) or 1
    lines = []
    for name, segments in rows:
        parts = (
            element("i", class_=kind, style=f"width:{100 * size / most:.3g}%")
            for kind, size in segments
        )
        total = format_bytes(sum(size for _, size in segments))
        bar = element("div", *parts, class_="bar", aria_hidden="true")
        cells = element("td", bar), element("td", total, class_="right")
        lines.append(_line(element("th", name), *cells))
    return element("table", *lines, class_="bars")


def key(*kinds: tuple[str, str]) -> Markup:
    """What the colours of bars stand for."""
    parts = [join((element("i", class_=f"key {kind}"), escape(text))) for kind, text in kinds]
    return element("div", *parts, class_="note")
