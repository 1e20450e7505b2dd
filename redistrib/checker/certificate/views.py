"""A step on common digits: cut finely enough for both types and the step itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from redistrib.checker.certificate.solver import require
from redistrib.checker.certificate.tables import Table
from redistrib.checker.claims import Effort
from redistrib.checker.parts import parts_of
from redistrib.errors import CheckError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, apart, is_chain, object_of, split_at
from redistrib.types.digits import parse_device_digit as device_digit
from redistrib.types.digits import parse_index_digit as index_digit

Object = str | int
"""An axis or a dimension."""

Part = DeviceDigit | IndexDigit
Cuts = dict[Object, set[int]]


@dataclass(frozen=True, slots=True)
class View:
    """A step on common digits; a table is one more owner, of all the runs that it decides.

    `owns` and `partial` are of the type before and the type after; `chains` has every index digit
    of each dimension, those that nobody owns too, and a last one of size 1 for what trails.
    """

    kind: str
    reduction: str | None
    types: tuple[ArrayType, ArrayType]
    owns: list[dict[DeviceDigit, IndexDigit]]
    partial: list[set[DeviceDigit]]
    changes: list[tuple[Any, ...]]  # a device digit, then index or device digits
    devices: list[DeviceDigit]
    chains: list[list[IndexDigit]]
    notes: list[str]

    @property
    def fixed(self) -> set[IndexDigit]:
        """The index digits whose sizes the mesh gives."""
        named = {i for change in self.changes for i in change if isinstance(i, IndexDigit)}
        return named.union(*(owns.values() for owns in self.owns))


def view_of(step: Any, before: ArrayType, after: ArrayType) -> View:
    """A step between two types on digits that all three share.

    Raises CheckError if there are none, or where a table of the step is wrong.
    """
    kind = step["collective"]
    tables = _tables(step, before, after)
    ends = {(a.axis, end) for table in tables for a in table.axes for end in (a.pre, a.end)}
    sides = [
        [p for p in split_at(t.placements, ends) if not any(x.has(p[0]) for x in tables)]
        + [pair for table in tables for pair in table.stand_ins]
        for t in (before, after)
    ]
    entries = _entries(step)
    partial = [[(d,) for d in t.partial] for t in (before, after)]
    cuts = _cut([*entries, *sides[0], *sides[1], *partial[0], *partial[1]], before)
    devices = [
        DeviceDigit(name, a, b // a)
        for name, positions in cuts.items()
        if isinstance(name, str)
        for a, b in pairwise(sorted(positions))
    ]
    chains = [
        [IndexDigit(dim, a, b // a) for a, b in pairwise([*sorted(cuts[dim]), max(cuts[dim])])]
        for dim in range(len(before.shape))
    ]
    return View(
        kind,
        step.get("reduction"),
        (before, after),
        owns=[{d: i for p in side for d, i in _pieces(p, cuts)} for side in sides],
        partial=[{p[0] for d in side for p in _pieces(d, cuts)} for side in partial],
        changes=[piece for entry in entries for piece in _pieces(entry, cuts)],
        devices=devices,
        chains=chains,
        notes=[table.note for table in tables],
    )


def _tables(step: Any, before: ArrayType, after: ArrayType) -> list[Table]:
    """The tables of a step, each found right, and none with an axis of another.

    A step with tables says what is owned after it, which is to be the type `after`.
    """
    kind = step["collective"]
    if kind != "exchange" and "table" not in step:
        return []
    listed = [step["table"]] if "table" in step else step.get("tables", [])
    if kind == "exchange" and before.mesh == after.mesh:
        listed = [*listed, *_implied(step, before, after)]
    tables = [Table(table, kind, before, after) for table in listed]
    data = step.get("table", step)["placements"]
    wanted = [(device_digit(d), index_digit(i)) for d, i in data]
    if kind != "exchange":
        wanted += [p for p in before.placements if not tables[0].has(p[0])]
    claimed = before.replace(placements=wanted)
    require(claimed == after, f"the placements of the step give {claimed}, not {after}")
    axes = [axis for table in tables for axis in table.axes]
    require(all(apart(a, b) for a, b in combinations(axes, 2)), "tables have no axis in common")
    return tables


def _implied(step: Any, before: ArrayType, after: ArrayType) -> Iterator[dict[str, list[str]]]:
    """The axes of the parts of an exchange whose digits do not match and that no table routes."""
    tables = [[*map(device_digit, table["axes"])] for table in step.get("tables", ())]
    named = [device_digit(name) for pair in step["replicas"] for name in pair]
    for part in parts_of(before, after, Effort(), named, tables):
        routed = any(part.has(axis) for axes in tables for axis in axes)
        if part.spans and not part.plain and not routed:
            yield {"axes": [str(span) for span in part.spans]}


def _entries(step: Any) -> list[tuple[Part, ...]]:
    """The digits that a step names: a device digit, and the digits that go with it."""
    match step["collective"]:
        case "all_to_all":
            return [(device_digit(d), index_digit(a), index_digit(b)) for d, a, b in step["moves"]]
        case "all_reduce" | "replicated_to_partial":
            return [(device_digit(d),) for d in step["digits"]]
        case "exchange":
            return [(device_digit(a), device_digit(b)) for a, b in step["replicas"]]
        case "collective_permute":
            return [(device_digit(a), device_digit(b)) for a, b in step.get("routes", ())]
        case "dynamic_slice" | "all_gather" | "reduce_scatter" | "sharded_to_partial":
            return [(device_digit(d), index_digit(i)) for d, i in step["placements"]]
        case other:
            raise CheckError(f"does not hold: {other} is a collective")


def _cut(entries: Sequence[tuple[Part, ...]], t: ArrayType) -> Cuts:
    """Cuts of axes and dimensions: at the ends of all digits, and where a partner is cut."""
    cuts: Cuts = {name: {1, size} for name, size in t.mesh.axes}
    cuts |= {dim: {1} for dim in range(len(t.shape))}
    wholes: dict[Object, int] = dict(t.mesh.axes)
    wholes |= dict(enumerate(t.shape))
    for entry in entries:
        for part in entry:
            obj = object_of(part)
            known = obj in cuts or str(obj).startswith("(table")
            fits = known and wholes.get(obj, part.end) % part.end == 0
            require(fits and part.size == entry[0].size, f"{part} is a digit of its size in {t}")
            cuts.setdefault(obj, {1}).update((part.pre, part.end))
    links = [pair for entry in entries for pair in combinations(entry, 2)]
    links += [(b, a) for a, b in links]
    count = 0
    while count != (count := sum(map(len, cuts.values()))):
        for a, b in links:
            for cut in [c for c in cuts[object_of(a)] if a.pre < c < a.end]:
                require(cut % a.pre == 0, f"digits are nested; a cut at {cut} is not, in {a}")
                cuts[object_of(b)].add(b.pre * (cut // a.pre))
    for obj, positions in cuts.items():
        chain = sorted(positions)
        require(is_chain(chain), f"digits are nested; those of {obj} end at {chain}")
    return cuts


def _pieces(parts: Sequence[Part], cuts: Cuts) -> Iterator[tuple[Any, ...]]:
    """Digits of one size, cut alike."""
    first = parts[0]
    ends = sorted(c for c in cuts[object_of(first)] if first.pre <= c <= first.end)
    for a, b in pairwise(ends):
        yield tuple(
            DeviceDigit(part.axis, part.pre * (a // first.pre), b // a)
            if isinstance(part, DeviceDigit)
            else IndexDigit(part.dim, part.pre * (a // first.pre), b // a)
            for part in parts
        )
