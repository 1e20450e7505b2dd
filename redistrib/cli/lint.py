"""`redistrib lint`: the layouts that the arrays of a program pass through, checked and priced.

The file is TOML, or JSON with the same keys:

    mesh = {data = 4, model = 8}       # or "data=4,model=8"
    profile = "dgx-h100"               # optional, as are the next two
    memory_limit = "1GiB"
    expensive = 1e-3                   # seconds from which a move is reported; default 0.001

    [[array]]
    name = "w1"
    layouts = ["f32[4096{data}, 4096{model}]", "f32[4096{model}, 4096{data}]"]
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redistrib.errors import RedistribError
from redistrib.interop.notations import read_any, states_array
from redistrib.report.figures import format_bytes, format_seconds
from redistrib.synth.oracle import Oracle
from redistrib.text import parse_size
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import check_pair

EXPENSIVE = 1e-3
KEYS = ("mesh", "profile", "memory_limit", "expensive", "array")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with, or expensive about, one array at one line of the file."""

    line: int
    kind: Literal["error", "expensive"]
    array: str
    message: str


def lint(path: Path) -> list[Finding]:
    """The findings of a file, in its order.

    Raises OSError, or RedistribError where the file as a whole is not such a list.
    """
    text, data = _load(path)
    unknown = [key for key in data if key not in KEYS]
    if unknown or "mesh" not in data or not isinstance(data.get("array"), list):
        raise RedistribError(
            f"a lint file has mesh, a list array, and optionally profile, memory_limit and "
            f"expensive; {path} has {', '.join(data) or 'nothing'}"
        )
    limit = data.get("memory_limit")
    profile, expensive = data.get("profile"), data.get("expensive", EXPENSIVE)
    if isinstance(expensive, bool) or not isinstance(expensive, int | float) or expensive < 0:
        raise RedistribError(f"expensive is a number of seconds, at least 0; got {expensive!r}")
    if not isinstance(profile, str | None):
        raise RedistribError(f"profile is the name of one or of a file; got {profile!r}")
    mesh = _mesh(data["mesh"])
    oracle = Oracle(mesh, profile, None if limit is None else parse_size(limit))
    lines = _Lines(text)
    return [
        finding
        for number, entry in enumerate(data["array"], start=1)
        for finding in _entry_findings(entry, number, oracle, float(expensive), lines)
    ]


def _load(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file and the table in it."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no text, or a number too long to read
        raise RedistribError(f"a lint file is TOML or JSON; {path} is not: {error}") from None
    if not isinstance(data, dict):
        raise RedistribError(f"a lint file is a table; {path} is a {type(data).__name__}")
    return text, data


def _mesh(value: object) -> Mesh:
    match value:
        case str():
            return Mesh.parse(value)
        case dict():
            return Mesh(value)
        case _:
            raise RedistribError(f"mesh is {{AXIS: SIZE, ...}} or 'x=2,y=4'; got {value!r}")


def _entry_findings(
    entry: object, number: int, oracle: Oracle, expensive: float, lines: _Lines
) -> Iterator[Finding]:
    """What is wrong with an array of the list; a malformed one is a finding like any other."""
    name = entry.get("name") if isinstance(entry, dict) else None
    label = name if isinstance(name, str) else f"array number {number}"
    match entry:
        case {"name": str(), "layouts": [str(), *_] as layouts, **rest} if not rest and all(
            isinstance(layout, str) for layout in layouts
        ):
            yield from _layout_findings(label, layouts, oracle, expensive, lines)
        case _:
            yield Finding(
                lines.find(label) if label == name else lines.here,
                "error",
                label,
                f"an array has a name and layouts, a list of at least one text; got {entry!r}",
            )


def _layout_findings(
    name: str, layouts: list[str], oracle: Oracle, expensive: float, lines: _Lines
) -> Iterator[Finding]:
    before: ArrayType | None = None
    array: tuple[tuple[int, ...] | None, str | None] = (None, None)
    for layout in layouts:
        line = lines.find(layout)
        try:
            # A notation that does not state the array means that of the layout before.
            stated = (None, None) if states_array(layout) else array
            after = read_any(layout, oracle.mesh, *stated)
        except RedistribError as error:
            yield Finding(line, "error", name, str(error).split("\n", maxsplit=1)[0])
            before = None  # what comes next is no move from the layout before
            continue
        array = after.shape, after.dtype
        if before is not None:
            try:
                check_pair(before, after)
                cost = oracle.cost(before, after)
            except RedistribError as error:
                yield Finding(line, "error", name, f"{before} -> {after}: {error}")
            else:
                if cost.num_collectives and cost.seconds >= expensive:
                    yield Finding(
                        line,
                        "expensive",
                        name,
                        f"{before} -> {after}: {format_seconds(cost.seconds)}, "
                        f"{format_bytes(cost.received_bytes)} received per device, "
                        f"{cost.num_collectives} collectives",
                    )
        before = after


class _Lines:
    """Finds the lines of texts that are asked in the order of the file."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.place = (0, 0)  # line and column after the last one found

    @property
    def here(self) -> int:
        """The line, from 1, of the last text that was found."""
        return self.place[0] + 1

    def find(self, wanted: str) -> int:
        """The line, from 1, of the next such string; of the last one found, if it is escaped."""
        line, column = self.place
        for n in range(line, len(self.lines)):
            start = column if n == line else 0
            if self.lines[n].lstrip().startswith("#"):
                continue
            for quote in "\"'":
                index = self.lines[n].find(f"{quote}{wanted}{quote}", start)
                if index >= 0:
                    self.place = (n, index + len(wanted))
                    return n + 1
        return line + 1
